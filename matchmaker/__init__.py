"""Players into matches: tickets, queues, rules, the director, and the REST API in front of them."""
