/*
 * The part of a board that LoRaMac-node's driver of the ATECC608-TNGLORA needs, for
 * firmware that runs on Linux with the chip on an I2C bus of the machine: two functions of
 * I2C, by the plain calls of /dev/i2c-1, and a delay. Put it in the place of the board's
 * i2c-board.c. With i2c-preload.so loaded before it, the same program talks to an emulated
 * element.
 *
 * Each transaction opens the bus, says the address, writes or reads, and closes it, as the
 * chip's host library does on Linux. The address is of 7 bits. Both functions give 1 for
 * success and 0 for "not acknowledged", as boards do.
 */
#include <fcntl.h>
#include <linux/i2c-dev.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int opened( uint8_t address )
{
    int fd = open( "/dev/i2c-1", O_RDWR );
    if( fd < 0 || ioctl( fd, I2C_SLAVE, address ) < 0 )
    {
        perror( "/dev/i2c-1" );
        exit( 4 );
    }
    return fd;
}

uint8_t I2cMcuWriteBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size )
{
    int fd = opened( deviceAddr );
    ( void ) obj;
    ssize_t n = write( fd, buffer, size );
    close( fd );
    return n == size;
}

uint8_t I2cMcuReadBuffer( void* obj, uint8_t deviceAddr, uint8_t* buffer, uint16_t size )
{
    int fd = opened( deviceAddr );
    ( void ) obj;
    ssize_t n = read( fd, buffer, size );
    close( fd );
    return n == size;
}

void DelayMs( uint32_t ms )
{
    struct timespec t = { ms / 1000, ( ms % 1000 ) * 1000000L };
    nanosleep( &t, NULL );
}
