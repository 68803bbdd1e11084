/*
 * The least that joins: a LoRaWAN 1.0.x device whose keys are in an ATECC608-TNGLORA, to
 * see that element, network and server are there before a whole stack is built, and how
 * few commands a join is. It is no device: it sends nothing else.
 *
 *     join NONCE-FILE        prints a join-request in hexadecimal digits, and takes the
 *                            accept in the same form, a line each; tells on standard error
 *                            what became of it, and ends with 0 where it joined
 *     join NONCE-FILE alone  does not wait for an accept, and derives keys as if there had
 *                            been one: for "joinsim element check"
 *
 * NONCE-FILE keeps the last DevNonce. Build it with board-i2c.c or board-linux.c.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t I2cMcuWriteBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size );
uint8_t I2cMcuReadBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size );
void    DelayMs( uint32_t ms );

#define ADDRESS 0x59 /* of 7 bits */
enum { READ = 0x02, AES = 0x51, KDF = 0x56 };
enum { ROOTS = 0, APP_S_KEY = 2, NWK_S_ENC_KEY = 3, S_NWK_S_INT_KEY = 4, F_NWK_S_INT_KEY = 5, JOIN_EUI = 9, DEV_EUI = 10 };

static void fail( const char* what )
{
    fprintf( stderr, "%s\n", what );
    exit( 1 );
}

/* ------------------------------------------------------------------ the element */

/* CRC-16, polynomial 8005, from 0, bits from the lowest on. */
static uint16_t crc( const uint8_t* b, size_t n )
{
    uint16_t c = 0;
    for( size_t i = 0; i < n * 8; i++ )
    {
        int bit = ( b[i / 8] >> i % 8 & 1 ) ^ c >> 15;
        c = ( uint16_t )( c << 1 ) ^ ( bit ? 0x8005 : 0 );
    }
    return c;
}

static int polled( uint8_t* into, uint16_t size )
{
    for( int i = 0; i < 400; i++ ) /* not acknowledged while it computes */
    {
        if( I2cMcuReadBuffer( NULL, ADDRESS, into, size ) )
        {
            return 1;
        }
        DelayMs( 1 );
    }
    return 0;
}

/* command wakes the chip, has it do a command, lets it idle, and gives what it answered:
 * size bytes, or with size 0 success. */
static void command( uint8_t op, uint8_t p1, uint16_t p2, const uint8_t* data, uint8_t n, uint8_t* answer, uint8_t size )
{
    static const uint8_t awake[4] = { 0x04, 0x11, 0x33, 0x43 };
    uint8_t p[160] = { 3, 7 + n, op, p1, p2 & 0xFF, p2 >> 8 }, got[160], idle = 2, none = 0;
    for( uint8_t i = 0; i < n; i++ )
    {
        p[6 + i] = data[i];
    }
    uint16_t c = crc( p + 1, 5 + n );
    p[6 + n] = c & 0xFF;
    p[7 + n] = c >> 8;
    I2cMcuWriteBuffer( NULL, 0, &none, 0 ); /* nobody acknowledges a wake */
    DelayMs( 2 );
    int ok = polled( got, 4 ) && memcmp( got, awake, 4 ) == 0;
    ok = ok && I2cMcuWriteBuffer( NULL, ADDRESS, p, 8 + n ) && polled( got, 1 ) && got[0] >= 4 && got[0] <= sizeof got;
    ok = ok && polled( got + 1, got[0] - 1 ) && crc( got, got[0] - 2 ) == ( got[got[0] - 2] | got[got[0] - 1] << 8 );
    I2cMcuWriteBuffer( NULL, ADDRESS, &idle, 1 );
    if( !ok || got[0] != ( size ? size + 3 : 4 ) || ( size == 0 && got[1] != 0 ) )
    {
        fail( "the element did not do a command" );
    }
    memcpy( answer, got + 1, size );
}

/* ------------------------------------------------------------------ LoRaWAN 1.0.x */

/* aes encrypts a block with the root key, the second half of slot 0. */
static void aes( const uint8_t in[16], uint8_t out[16] )
{
    command( AES, 0x40, ROOTS, in, 16, out, 16 );
}

static void doubled( uint8_t b[16] )
{
    uint8_t carry = b[0] >> 7 ? 0x87 : 0;
    for( int i = 0; i < 16; i++ )
    {
        b[i] = b[i] << 1 | ( i < 15 ? b[i + 1] >> 7 : 0 );
    }
    b[15] ^= carry;
}

/* mic gives the first four bytes of AES-CMAC. */
static void mic( const uint8_t* message, size_t n, uint8_t out[4] )
{
    uint8_t key[16] = { 0 }, x[16] = { 0 };
    aes( key, key );
    doubled( key );
    if( n % 16 != 0 )
    {
        doubled( key );
    }
    for( size_t i = 0; i < n; i += 16 )
    {
        size_t left = n - i < 16 ? n - i : 16;
        for( size_t j = 0; j < 16; j++ )
        {
            x[j] ^= j < left ? message[i + j] : j == left ? 0x80 : 0;
            x[j] ^= i + 16 >= n ? key[j] : 0;
        }
        aes( x, x );
    }
    memcpy( out, x, 4 );
}

/* derive has the element make a session key in a slot, which it does not tell. */
static void derive( uint8_t purpose, const uint8_t accept[12], uint16_t nonce, uint16_t slot )
{
    uint8_t in[20] = { 1, 0, 0, 0, purpose }; /* which half of the source slot, in four bytes; then the block */
    memcpy( in + 5, accept + 1, 6 );          /* JoinNonce, NetID */
    in[11] = nonce & 0xFF;
    in[12] = nonce >> 8;
    command( KDF, 0x2A, slot << 8 | ROOTS, in, 20, in, 0 );
}

static uint16_t next( const char* path )
{
    unsigned nonce = 0;
    FILE* f = fopen( path, "r" );
    if( f != NULL )
    {
        if( fscanf( f, "%u", &nonce ) != 1 )
        {
            fail( "the nonce file has no number in it" );
        }
        fclose( f );
    }
    f = fopen( path, "w" );
    if( ++nonce > 0xFFFF || f == NULL || fprintf( f, "%u\n", nonce ) < 0 || fclose( f ) != 0 )
    {
        fail( "the DevNonce could not be kept, and must not be used twice" );
    }
    return nonce;
}

/* take reads an accept, decrypts and checks it. */
static void take( uint8_t accept[33] )
{
    uint8_t digits[33], got[4];
    char line[200] = "";
    size_t n = 0;
    if( fgets( line, sizeof line, stdin ) != NULL )
    {
        for( unsigned v; n < sizeof digits && sscanf( line + 2 * n, "%2x", &v ) == 1; n++ )
        {
            digits[n] = v;
        }
    }
    if( n != 17 && n != 33 )
    {
        fprintf( stderr, "no accept, but: %s\n", line );
        exit( 1 );
    }
    accept[0] = digits[0];
    for( size_t i = 1; i < n; i += 16 )
    {
        aes( digits + i, accept + i ); /* who made it decrypted, so that a device need only encrypt */
    }
    mic( accept, n - 4, got );
    if( memcmp( got, accept + n - 4, 4 ) != 0 )
    {
        fail( "the accept's MIC is wrong" );
    }
    if( accept[11] & 0x80 )
    {
        fail( "the network speaks LoRaWAN 1.1, this one 1.0" );
    }
}

int main( int argc, char** argv )
{
    uint8_t request[23] = { 0 }, accept[33] = { 0x20, 1 }, b[32];
    int alone = argc == 3 && strcmp( argv[2], "alone" ) == 0;
    if( argc != 2 && !alone )
    {
        fail( "usage: join NONCE-FILE [alone]" );
    }
    uint16_t nonce = next( argv[1] );
    command( READ, 0x82, JOIN_EUI << 3, NULL, 0, b, 32 );
    for( int i = 0; i < 8; i++ )
    {
        request[1 + i] = b[7 - i];
    }
    command( READ, 0x82, DEV_EUI << 3, NULL, 0, b, 32 );
    for( int i = 0; i < 8; i++ )
    {
        char pair[3] = { b[14 - 2 * i], b[15 - 2 * i] };
        request[9 + i] = strtoul( pair, NULL, 16 );
    }
    request[17] = nonce & 0xFF;
    request[18] = nonce >> 8;
    mic( request, 19, request + 19 );
    for( size_t i = 0; i < sizeof request; i++ )
    {
        printf( "%02x", request[i] );
    }
    printf( "\n" );
    fflush( stdout );

    if( !alone )
    {
        take( accept );
    }
    derive( 2, accept, nonce, APP_S_KEY );
    derive( 1, accept, nonce, NWK_S_ENC_KEY );
    derive( 1, accept, nonce, F_NWK_S_INT_KEY );
    derive( 1, accept, nonce, S_NWK_S_INT_KEY );
    fprintf( stderr, "joined with DevNonce %u, DevAddr %02X%02X%02X%02X\n", nonce, accept[10], accept[9], accept[8], accept[7] );
    return 0;
}
