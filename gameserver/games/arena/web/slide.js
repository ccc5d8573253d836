/**
 * Moving about among the arena's walls: the same steps in the same order as `Map.move` in maps.py, so that prediction is right to the bit.
 * `tests/vectors/arena_moves.json` holds both to it.
 */

/**
 * @param {{width: number, height: number, walls: number[][]}} map walls are left, top, right, bottom
 * @param {number} radius the player's
 * @param {number} x
 * @param {number} y
 * @param {number} dx
 * @param {number} dy
 * @returns {[number, number]} where the player is after a step by (dx, dy): first along x, then along y
 */
export function slide(map, radius, x, y, dx, dy) {
  x = clamp(x + dx, radius, map.width - radius);
  for (const [left, top, right, bottom] of map.walls) {
    const inY = y > top - radius && y < bottom + radius;
    if (inY && x > left - radius && x < right + radius) x = dx > 0 ? left - radius : right + radius;
  }
  y = clamp(y + dy, radius, map.height - radius);
  for (const [left, top, right, bottom] of map.walls) {
    const inX = x > left - radius && x < right + radius;
    if (inX && y > top - radius && y < bottom + radius) y = dy > 0 ? top - radius : bottom + radius;
  }
  return [x, y];
}

/** One input's step; a diagonal is no faster. */
export function walk(map, radius, speed, state, input, dtS) {
  if (!state.alive) return state;
  const length = Math.max(1, Math.hypot(input.move_x, input.move_y));
  const [x, y] = slide(map, radius, state.x, state.y, (input.move_x / length) * speed * dtS, (input.move_y / length) * speed * dtS);
  return { ...state, x, y, aim: input.aim };
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
