/*
 * The part of a board that LoRaMac-node's driver of the ATECC608-TNGLORA needs, for
 * firmware that runs on a computer: two functions of I2C, over a socket to the emulated
 * element of "joinsim element serve", and a delay. Put it in the place of the board's
 * i2c-board.c.
 *
 * The element's address is taken from JOINSIM_ELEMENT, HOST:PORT or unix:PATH; without
 * it, 127.0.0.1:7608. JOINSIM_ELEMENT_NAME selects an element there by DevEUI, serial
 * number or #PLACE; without it, the first one answers.
 *
 * It includes no header of LoRaMac-node, of which it needs no type. Both functions give
 * 1 for success and 0 for "not acknowledged", as boards do. Where the element is gone
 * there is nothing that a driver could do: the process ends.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int element = -1;

static void fail( const char* what )
{
    fprintf( stderr, "element: %s\n", what );
    exit( 4 );
}

static int dial( const char* address )
{
    int fd = -1;
    if( strncmp( address, "unix:", 5 ) == 0 )
    {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        if( strlen( address + 5 ) >= sizeof a.sun_path )
        {
            fail( "the path in JOINSIM_ELEMENT is too long" );
        }
        strcpy( a.sun_path, address + 5 );
        fd = socket( AF_UNIX, SOCK_STREAM, 0 );
        return fd >= 0 && connect( fd, ( struct sockaddr* ) &a, sizeof a ) == 0 ? fd : -1;
    }
    char host[256];
    const char* port = strrchr( address, ':' );
    if( port == NULL || ( size_t )( port - address ) >= sizeof host )
    {
        fail( "JOINSIM_ELEMENT is neither HOST:PORT nor unix:PATH" );
    }
    size_t n = port - address, bracketed = *address == '[' && port[-1] == ']'; /* [::1]:7608 */
    memcpy( host, address + bracketed, n - 2 * bracketed );
    host[n - 2 * bracketed] = 0;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    if( getaddrinfo( host, port + 1, &hints, &list ) != 0 )
    {
        return -1;
    }
    for( struct addrinfo* a = list; a != NULL; a = a->ai_next )
    {
        fd = socket( a->ai_family, a->ai_socktype, a->ai_protocol );
        if( fd >= 0 && connect( fd, a->ai_addr, a->ai_addrlen ) == 0 )
        {
            int yes = 1;
            setsockopt( fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes );
            break;
        }
        if( fd >= 0 )
        {
            close( fd );
            fd = -1;
        }
    }
    freeaddrinfo( list );
    return fd;
}

static void sendAll( const uint8_t* b, size_t n )
{
    while( n > 0 )
    {
        ssize_t k = send( element, b, n, MSG_NOSIGNAL );
        if( k < 0 && errno == EINTR )
        {
            continue;
        }
        if( k <= 0 )
        {
            fail( "it hung up" );
        }
        b += k;
        n -= k;
    }
}

static void receiveAll( uint8_t* b, size_t n )
{
    while( n > 0 )
    {
        ssize_t k = recv( element, b, n, 0 );
        if( k < 0 && errno == EINTR )
        {
            continue;
        }
        if( k <= 0 )
        {
            fail( "it hung up" );
        }
        b += k;
        n -= k;
    }
}

/* A frame: what it is, address, length in two bytes, data. The answer begins with 01,
 * or is 00. */
static uint8_t frame( uint8_t kind, uint8_t address, const uint8_t* data, uint16_t size, uint8_t* answer )
{
    uint8_t f[4 + 1024] = { kind, address, size >> 8, size & 0xFF };
    uint8_t ok = 0;
    if( size > 1024 )
    {
        return 0;
    }
    if( data != NULL )
    {
        memcpy( f + 4, data, size );
    }
    sendAll( f, data != NULL ? 4 + size : 4 );
    receiveAll( &ok, 1 );
    if( ok && answer != NULL )
    {
        receiveAll( answer, size );
    }
    return ok;
}

static void connected( void )
{
    if( element >= 0 )
    {
        return;
    }
    const char* address = getenv( "JOINSIM_ELEMENT" );
    const char* name = getenv( "JOINSIM_ELEMENT_NAME" );
    element = dial( address != NULL ? address : "127.0.0.1:7608" );
    if( element < 0 )
    {
        fail( "nobody answers: start \"joinsim element serve\", or set JOINSIM_ELEMENT" );
    }
    if( name != NULL && *name != 0 && !frame( 'S', 0, ( const uint8_t* ) name, strlen( name ), NULL ) )
    {
        fail( "there is none of the name in JOINSIM_ELEMENT_NAME" );
    }
}

uint8_t I2cMcuWriteBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size )
{
    static const uint8_t none[1];
    ( void ) obj;
    connected( );
    return frame( 'W', deviceAddr, buffer != NULL ? buffer : none, size, NULL );
}

uint8_t I2cMcuReadBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size )
{
    ( void ) obj;
    connected( );
    return frame( 'R', deviceAddr, NULL, size, buffer );
}

void DelayMs( uint32_t ms )
{
    struct timespec t = { ms / 1000, ( ms % 1000 ) * 1000000L };
    nanosleep( &t, NULL );
}
