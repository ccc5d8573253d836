/*
    Drives the reference implementation of netcode (netcode.c of mas-bandwidth/netcode) for test_netcode_reference.py, by lines on stdin and stdout.

    server ADDRESS MAX_CLIENTS PRIVATE_KEY_HEX PROTOCOL_ID_HEX    echoes payloads; commands: disconnect INDEX, quit
    client TOKEN_HEX                                             commands: send SIZE (payload of bytes 0, 1, 2, …), pause, quit
    vectors                                                      prints what the frozen vectors hold, made by the reference
*/

#include "netcode.h"
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void unhex( const char * text, uint8_t * out, int bytes )
{
    for ( int i = 0; i < bytes; i++ )
    {
        unsigned value = 0;
        sscanf( text + 2 * i, "%2x", &value );
        out[i] = (uint8_t) value;
    }
}

static void say_hex( const char * name, const uint8_t * data, int bytes )
{
    printf( "%s ", name );
    for ( int i = 0; i < bytes; i++ )
        printf( "%02x", data[i] );
    printf( "\n" );
}

/* The next line of stdin, or NULL; *ended is set when the other side is gone. */
static char * command( int * ended )
{
    static char line[256];
    static int length = 0;
    char byte;
    while ( 1 )
    {
        ssize_t got = read( 0, &byte, 1 );
        if ( got == 0 )
            *ended = 1;
        if ( got != 1 )
            return NULL;
        if ( byte == '\n' )
        {
            line[length] = 0;
            length = 0;
            return line;
        }
        if ( length < 255 )
            line[length++] = byte;
    }
}

static void on_client( void * context, int index, int connected )
{
    struct netcode_server_t * server = *(struct netcode_server_t **) context;
    if ( connected )
        printf( "connected %d %016" PRIx64 "\n", index, netcode_server_client_id( server, index ) );
    else
        printf( "disconnected %d %d\n", index, netcode_server_client_disconnect_reason( server, index ) );
}

static int run_server( char ** argv )
{
    static struct netcode_server_t * server;
    struct netcode_server_config_t config;
    netcode_default_server_config( &config );
    unhex( argv[4], config.private_key, NETCODE_KEY_BYTES );
    config.protocol_id = strtoull( argv[5], NULL, 16 );
    config.callback_context = &server;
    config.connect_disconnect_callback = on_client;
    server = netcode_server_create( argv[2], &config, netcode_time() );
    if ( !server )
        return 1;
    int max_clients = atoi( argv[3] );
    netcode_server_start( server, max_clients );
    printf( "ready\n" );
    int quit = 0;
    while ( !quit )
    {
        char * line = command( &quit );
        if ( line && strncmp( line, "disconnect ", 11 ) == 0 )
            netcode_server_disconnect_client( server, atoi( line + 11 ) );
        else if ( line && strcmp( line, "quit" ) == 0 )
            quit = 1;
        netcode_server_update( server, netcode_time() );
        for ( int i = 0; i < max_clients; i++ )
        {
            int bytes;
            uint64_t sequence;
            uint8_t * packet;
            while ( ( packet = netcode_server_receive_packet( server, i, &bytes, &sequence ) ) != NULL )
            {
                netcode_server_send_packet( server, i, packet, bytes );
                netcode_server_free_packet( server, packet );
            }
        }
        netcode_sleep( 0.005 );
    }
    netcode_server_destroy( server );
    return 0;
}

static void on_state( void * context, int before, int after )
{
    (void) context;
    (void) before;
    printf( "state %d\n", after );
}

static int run_client( char ** argv )
{
    struct netcode_client_config_t config;
    netcode_default_client_config( &config );
    config.state_change_callback = on_state;
    struct netcode_client_t * client = netcode_client_create_dual( "0.0.0.0", "::", &config, netcode_time() );
    if ( !client )
        return 1;
    uint8_t token[NETCODE_CONNECT_TOKEN_BYTES];
    unhex( argv[2], token, sizeof( token ) );
    netcode_client_connect( client, token );
    uint8_t payload[NETCODE_MAX_PACKET_SIZE];
    for ( int i = 0; i < NETCODE_MAX_PACKET_SIZE; i++ )
        payload[i] = (uint8_t) i;
    int quit = 0, paused = 0;
    while ( !quit && netcode_client_state( client ) > NETCODE_CLIENT_STATE_DISCONNECTED )
    {
        char * line = command( &quit );
        if ( line && strncmp( line, "send ", 5 ) == 0 )
            netcode_client_send_packet( client, payload, atoi( line + 5 ) );
        else if ( line && strcmp( line, "pause" ) == 0 )
            paused = 1;
        else if ( line && strcmp( line, "quit" ) == 0 )
            quit = 1;
        if ( !paused )
            netcode_client_update( client, netcode_time() );
        int bytes;
        uint64_t sequence;
        uint8_t * packet;
        while ( ( packet = netcode_client_receive_packet( client, &bytes, &sequence ) ) != NULL )
        {
            int right = bytes <= NETCODE_MAX_PACKET_SIZE && memcmp( packet, payload, bytes ) == 0;
            printf( "received %d %s\n", bytes, right ? "right" : "wrong" );
            netcode_client_free_packet( client, packet );
        }
        netcode_sleep( 0.005 );
    }
    netcode_client_destroy( client );
    return 0;
}

/* Functions and structures of netcode.c that its header does not show. */
struct private_t
{
    uint64_t client_id;
    int timeout_seconds;
    int num_server_addresses;
    struct netcode_address_t server_addresses[32];
    uint8_t client_to_server_key[32];
    uint8_t server_to_client_key[32];
    uint8_t user_data[256];
};
struct public_t
{
    uint8_t version_info[13];
    uint64_t protocol_id;
    uint64_t create_timestamp;
    uint64_t expire_timestamp;
    uint8_t nonce[24];
    uint8_t private_data[1024];
    int timeout_seconds;
    int num_server_addresses;
    struct netcode_address_t server_addresses[32];
    uint8_t client_to_server_key[32];
    uint8_t server_to_client_key[32];
};
struct challenge_t { uint64_t client_id; uint8_t user_data[256]; };
struct request_t { uint8_t type; uint8_t version_info[13]; uint64_t protocol_id; uint64_t expire; uint8_t nonce[24]; uint8_t data[1024]; };
struct challenge_packet_t { uint8_t type; uint64_t sequence; uint8_t data[300]; };
struct keep_alive_t { uint8_t type; int client_index; int max_clients; };
struct payload_t { uint8_t type; uint32_t bytes; uint8_t data[1200]; };
void netcode_write_connect_token_private( struct private_t *, uint8_t *, int );
int netcode_encrypt_connect_token_private( uint8_t *, int, uint8_t *, uint64_t, uint64_t, const uint8_t *, const uint8_t * );
void netcode_write_connect_token( struct public_t *, uint8_t *, int );
void netcode_write_challenge_token( struct challenge_t *, uint8_t *, int );
int netcode_encrypt_challenge_token( uint8_t *, int, uint64_t, uint8_t * );
int netcode_write_packet( void *, uint8_t *, int, uint64_t, uint8_t *, uint64_t );

static void say_packet( const char * name, void * packet, uint64_t sequence, uint8_t * key, uint64_t protocol_id )
{
    uint8_t buffer[1400];
    int bytes = netcode_write_packet( packet, buffer, sizeof( buffer ), sequence, key, protocol_id );
    say_hex( name, buffer, bytes );
}

static int print_vectors( void )
{
    const uint64_t protocol_id = 0x1122334455667788ULL;
    uint8_t private_key[32], challenge_key[32];
    static struct private_t secret;
    static struct public_t token;
    secret.client_id = 0x0102030405060708ULL;
    secret.timeout_seconds = 5;
    secret.num_server_addresses = 2;
    netcode_parse_address( "127.0.0.1:40000", &secret.server_addresses[0] );
    netcode_parse_address( "[2001:db8::1:2]:40001", &secret.server_addresses[1] );
    for ( int i = 0; i < 32; i++ )
    {
        private_key[i] = (uint8_t) i;
        secret.client_to_server_key[i] = (uint8_t) ( 32 + i );
        secret.server_to_client_key[i] = (uint8_t) ( 64 + i );
        challenge_key[i] = (uint8_t) ( 96 + i );
    }
    for ( int i = 0; i < 256; i++ )
        secret.user_data[i] = (uint8_t) ( 255 - i );
    memcpy( token.version_info, "NETCODE 1.02", 13 );
    token.protocol_id = protocol_id;
    token.create_timestamp = 1700000000;
    token.expire_timestamp = 1700000060;
    for ( int i = 0; i < 24; i++ )
        token.nonce[i] = (uint8_t) ( 128 + i );
    netcode_write_connect_token_private( &secret, token.private_data, 1024 );
    netcode_encrypt_connect_token_private( token.private_data, 1024, token.version_info, protocol_id, token.expire_timestamp, token.nonce, private_key );
    token.timeout_seconds = secret.timeout_seconds;
    token.num_server_addresses = 2;
    memcpy( token.server_addresses, secret.server_addresses, sizeof( token.server_addresses ) );
    memcpy( token.client_to_server_key, secret.client_to_server_key, 32 );
    memcpy( token.server_to_client_key, secret.server_to_client_key, 32 );
    uint8_t buffer[2048];
    memset( buffer, 0, sizeof( buffer ) );
    netcode_write_connect_token( &token, buffer, sizeof( buffer ) );
    say_hex( "connect_token", buffer, sizeof( buffer ) );

    static struct request_t request;
    memcpy( request.version_info, token.version_info, 13 );
    request.protocol_id = protocol_id;
    request.expire = token.expire_timestamp;
    memcpy( request.nonce, token.nonce, 24 );
    memcpy( request.data, token.private_data, 1024 );
    say_packet( "request", &request, 0, secret.client_to_server_key, protocol_id );

    static struct challenge_t challenge;
    static struct challenge_packet_t answer;
    challenge.client_id = secret.client_id;
    memcpy( challenge.user_data, secret.user_data, 256 );
    answer.type = 2;
    answer.sequence = 7;
    netcode_write_challenge_token( &challenge, answer.data, 300 );
    netcode_encrypt_challenge_token( answer.data, 300, answer.sequence, challenge_key );
    say_packet( "challenge", &answer, 1ULL << 63, secret.server_to_client_key, protocol_id );
    answer.type = 3;
    say_packet( "response", &answer, 0, secret.client_to_server_key, protocol_id );

    uint8_t bare[2] = { 1, 0 };
    say_packet( "denied", bare, ( 1ULL << 63 ) + 1, secret.server_to_client_key, protocol_id );
    struct keep_alive_t keep_alive = { 4, 3, 64 };
    say_packet( "keep_alive", &keep_alive, 1000, secret.server_to_client_key, protocol_id );
    static struct payload_t payload;
    payload.type = 5;
    payload.bytes = 1200;
    for ( int i = 0; i < 1200; i++ )
        payload.data[i] = (uint8_t) i;
    say_packet( "payload_long", &payload, 0xFFFFFFFFFFFFFFFFULL, secret.client_to_server_key, protocol_id );
    payload.bytes = 1;
    say_packet( "payload_short", &payload, 65535, secret.client_to_server_key, protocol_id );
    bare[0] = 6;
    say_packet( "disconnect", bare, 65536, secret.client_to_server_key, protocol_id );
    return 0;
}

int main( int argc, char ** argv )
{
    setvbuf( stdout, NULL, _IOLBF, 0 );
    if ( netcode_init() != NETCODE_OK )
        return 1;
    if ( argc == 2 && strcmp( argv[1], "vectors" ) == 0 )
        return print_vectors();
    fcntl( 0, F_SETFL, fcntl( 0, F_GETFL ) | O_NONBLOCK );
    if ( argc == 6 && strcmp( argv[1], "server" ) == 0 )
        return run_server( argv );
    if ( argc == 3 && strcmp( argv[1], "client" ) == 0 )
        return run_client( argv );
    return 2;
}
