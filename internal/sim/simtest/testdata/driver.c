/* Does on I2C what drivers of the element do: wake, command, poll, two reads, idle.
 * Reads "PACKET ANSWER" from its input, hexadecimal, and says whether all came so. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

uint8_t I2cMcuWriteBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size );
uint8_t I2cMcuReadBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size );
void    DelayMs( uint32_t ms );

static int polled( uint8_t* into, uint16_t size )
{
    for( int i = 0; i < 19; i++ )
    {
        if( I2cMcuReadBuffer( NULL, 0x59, into, size ) == 1 )
        {
            return 1;
        }
    }
    return 0;
}

static int execute( const uint8_t* packet, size_t size, uint8_t answer[256] )
{
    static const uint8_t awake[4] = { 0x04, 0x11, 0x33, 0x43 };
    uint8_t out[256] = { 3 }, got[4], idle = 2, empty[1] = { 0 };
    I2cMcuWriteBuffer( NULL, 0, empty, 0 );
    DelayMs( 1 );
    if( !polled( got, 4 ) || memcmp( got, awake, 4 ) != 0 )
    {
        I2cMcuWriteBuffer( NULL, 0x59, &idle, 1 );
        return 0;
    }
    memcpy( out + 1, packet, size );
    int ok = I2cMcuWriteBuffer( NULL, 0x59, out, size + 1 ) == 1;
    for( int rounds = 0; ok && !polled( answer, 1 ); rounds++ )
    {
        DelayMs( 2 );
        ok = rounds < 1251;
    }
    ok = ok && polled( answer + 1, answer[0] - 1 );
    I2cMcuWriteBuffer( NULL, 0x59, &idle, 1 );
    return ok;
}

static size_t unhex( const char* text, uint8_t* b )
{
    size_t n = 0;
    unsigned v;
    for( ; sscanf( text, "%2x", &v ) == 1; text += 2 )
    {
        b[n++] = v;
    }
    return n;
}

int main( void )
{
    char p[600], a[600];
    int n = 0;
    while( scanf( "%599s %599s", p, a ) == 2 )
    {
        uint8_t packet[300], want[300], got[256];
        size_t k = unhex( p, packet ), w = unhex( a, want );
        if( !execute( packet, k, got ) || memcmp( got, want, w ) != 0 )
        {
            printf( "command %d: %s\n", n + 1, p );
            return 1;
        }
        n++;
    }
    printf( "%d commands\n", n );
    return 0;
}
