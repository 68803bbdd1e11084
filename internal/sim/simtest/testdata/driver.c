/* Does on I2C what a driver of the element did when it was recorded: reads transactions
 * from its input, a line each (wake; idle; write PACKET; read COUNT = ANSWER), and says
 * whether all answers came so. A read that is not acknowledged is done again, as that
 * driver does. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

uint8_t I2cMcuWriteBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size );
uint8_t I2cMcuReadBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size );
void    DelayMs( uint32_t ms );

static int polled( uint8_t* into, uint16_t size )
{
    for( int i = 0; i < 19 * 1251; i++ )
    {
        if( I2cMcuReadBuffer( NULL, 0x59, into, size ) == 1 )
        {
            return 1;
        }
        if( i % 19 == 18 )
        {
            DelayMs( 2 );
        }
    }
    return 0;
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

static int transaction( const char* line )
{
    static const uint8_t empty[1];
    char text[600];
    unsigned count;
    uint8_t b[300] = { 3 }, want[300], got[300];
    if( sscanf( line, "write %599s", text ) == 1 )
    {
        return I2cMcuWriteBuffer( NULL, 0x59, b, 1 + unhex( text, b + 1 ) ) == 1;
    }
    if( sscanf( line, "read %u = %599s", &count, text ) == 2 && unhex( text, want ) == count )
    {
        return polled( got, count ) && memcmp( got, want, count ) == 0;
    }
    if( strncmp( line, "wake", 4 ) == 0 )
    {
        I2cMcuWriteBuffer( NULL, 0, ( uint8_t* ) empty, 0 );
        DelayMs( 1500 / 1000 );
        return 1;
    }
    b[0] = 2;
    return strncmp( line, "idle", 4 ) == 0 && I2cMcuWriteBuffer( NULL, 0x59, b, 1 ) == 1;
}

int main( void )
{
    char line[700];
    int n = 0;
    while( fgets( line, sizeof line, stdin ) != NULL )
    {
        if( line[0] == '#' || line[0] == '\n' )
        {
            continue;
        }
        n++;
        if( !transaction( line ) )
        {
            printf( "transaction %d: %s", n, line );
            return 1;
        }
    }
    printf( "%d transactions\n", n );
    return 0;
}
