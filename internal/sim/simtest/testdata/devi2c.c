/* What a program on Linux may do with /dev/i2c-1, with the element's library loaded
 * before it: each check that fails is a line. Needs an element that is asleep. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/i2c-dev.h>
#include <linux/i2c.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int wrong;
#define CHECK( what )                                                 \
    do                                                                \
    {                                                                 \
        if( !( what ) )                                               \
        {                                                             \
            printf( "line %d: %s (%m)\n", __LINE__, #what );          \
            wrong++;                                                  \
        }                                                             \
    } while( 0 )
#define FAILS( call, error ) CHECK( ( errno = 0, ( call ) == -1 && errno == ( error ) ) )

static uint8_t info[] = { 3, 0x07, 0x30, 0, 0, 0, 0x03, 0x5d };
static const uint8_t revision[] = { 7, 0, 0, 0x60, 2, 0x80, 0x38 }, awake[] = { 4, 0x11, 0x33, 0x43 };
static uint8_t idle = 2, nothing;

/* A whole command in one call, which no other process or thread comes between. */
static int whole( int fd )
{
    uint8_t got[7] = { 0 };
    struct i2c_msg m[] = {
        { 0, I2C_M_IGNORE_NAK, 1, &nothing }, { 0x59, 0, sizeof info, info }, { 0x59, I2C_M_RD, sizeof got, got }, { 0x59, 0, 1, &idle }
    };
    struct i2c_rdwr_ioctl_data all = { m, 4 };
    return ioctl( fd, I2C_RDWR, &all ) == 4 && memcmp( got, revision, sizeof got ) == 0;
}

static volatile int ticked;

static void tick( int signal )
{
    ticked += signal == SIGALRM;
}

static void ticking( int microseconds )
{
    struct itimerval often = { { 0, microseconds }, { 0, microseconds } };
    struct sigaction ticks = { .sa_handler = tick };
    CHECK( sigaction( SIGALRM, &ticks, NULL ) == 0 && setitimer( ITIMER_REAL, &often, NULL ) == 0 );
}

/* An element that lets nobody in before three signals came. */
static void* late( void* door )
{
    while( ticked < 3 )
    {
        usleep( 100 );
    }
    CHECK( accept( *( int* ) door, NULL, NULL ) >= 0 && accept( *( int* ) door, NULL, NULL ) >= 0 );
    return NULL;
}

/* Signals that come all the time neither end the wait for a door, nor draw out that for an
 * answer which never comes. */
static int interrupted( int silent )
{
    struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "door" };
    int door = socket( AF_UNIX, SOCK_STREAM, 0 ), first = socket( AF_UNIX, SOCK_STREAM, 0 );
    CHECK( bind( door, ( void* ) &a, sizeof a ) == 0 && listen( door, 0 ) == 0 && setenv( "JOINSIM_ELEMENT", "unix:door", 1 ) == 0 );
    pthread_t thread;
    sigset_t alarms;
    sigemptyset( &alarms );
    sigaddset( &alarms, SIGALRM );
    if( !silent )
    {
        CHECK( connect( first, ( void* ) &a, sizeof a ) == 0 ); /* now the next one has to wait */
        pthread_sigmask( SIG_BLOCK, &alarms, NULL );            /* in the thread */
        CHECK( pthread_create( &thread, NULL, late, &door ) == 0 );
        pthread_sigmask( SIG_UNBLOCK, &alarms, NULL );
    }
    ticking( 200 );
    int bus = open( "/dev/i2c-1", O_RDWR );
    CHECK( bus >= 0 );
    if( silent )
    {
        FAILS( read( bus, &nothing, 1 ), EIO );
    }
    else
    {
        CHECK( pthread_join( thread, NULL ) == 0 );
    }
    ticking( 0 );
    printf( "%d wrong\n", wrong );
    return wrong != 0;
}

static void* many( void* fd )
{
    for( int i = 0; i < 50; i++ )
    {
        if( !whole( *( int* ) fd ) )
        {
            return fd;
        }
    }
    return NULL;
}

static int child( pid_t pid )
{
    int status = 0;
    return waitpid( pid, &status, 0 ) == pid && WIFEXITED( status ) && WEXITSTATUS( status ) == 0;
}

int main( int argc, char** argv )
{
    uint8_t got[2000];
    if( argc == 3 )
    {
        return interrupted( strcmp( argv[2], "silent" ) == 0 );
    }
    if( argc == 2 ) /* with a bus that it has from who started it */
    {
        return whole( atoi( argv[1] ) ) ? 0 : 1;
    }

    /* The bus, one transaction after the other. */
    int how = argc == 1 ? O_RDWR : O_RDONLY; /* which the compiler does not know, so that it asks for the checked calls */
    int bus = openat( AT_FDCWD, "/dev/i2c-1", O_RDWR ), other = open64( "/dev/i2c-1", O_RDWR | O_CLOEXEC );
    unsigned long functions = 0;
    CHECK( bus >= 0 && other >= 0 );
    CHECK( ioctl( bus, I2C_FUNCS, &functions ) == 0 && functions & I2C_FUNC_I2C );
    FAILS( ioctl( bus, I2C_SLAVE, 0xB2 ), EINVAL );
    FAILS( ioctl( bus, I2C_SMBUS, NULL ), EOPNOTSUPP );
    FAILS( ioctl( bus, FIONREAD, NULL ), ENOTTY );
    CHECK( ioctl( bus, I2C_SLAVE, 0x59 ) == 0 && ioctl( other, I2C_SLAVE, 0 ) == 0 );
    FAILS( read( bus, got, 4 ), ENXIO ); /* it sleeps */
    FAILS( write( bus, info, sizeof info ), ENXIO );
    FAILS( write( other, &nothing, 1 ), ENXIO ); /* wakes, and nobody acknowledges */
    CHECK( read( bus, got, 4 ) == 4 && memcmp( got, awake, 4 ) == 0 );
    CHECK( ioctl( other, I2C_SLAVE_FORCE, 0x2C ) == 0 );
    FAILS( read( other, got, 1 ), ENXIO ); /* nobody has this address */
    CHECK( write( bus, info, sizeof info ) == sizeof info );
    CHECK( read( bus, got, argc ) == 1 && got[0] == 7 );
    CHECK( read( bus, got, 9 ) == 9 && memcmp( got, revision + 1, 6 ) == 0 && got[6] == 0xFF );
    FAILS( read( bus, got, 2000 ), EOPNOTSUPP );
    CHECK( write( bus, &idle, 1 ) == 1 );
    FAILS( read( bus, got, 1 ), ENXIO ); /* it idles */
    CHECK( whole( other ) ); /* messages have addresses of their own */
    struct i2c_msg shifted = { 0xB2, I2C_M_RD, 1, got };
    struct i2c_rdwr_ioctl_data one = { &shifted, 1 };
    FAILS( ioctl( bus, I2C_RDWR, &one ), EINVAL );

    /* Signals do not come through: firmware on a computer has its timers so. */
    ticking( 200 );
    for( int i = 0; i < 20 || ticked < 3; i++ )
    {
        CHECK( whole( bus ) );
    }
    ticking( 0 );

    /* Copies of a descriptor are the same open bus; it closes as files do. */
    int copy = dup( bus );
    CHECK( ioctl( copy, I2C_SLAVE, 0 ) == 0 );
    FAILS( write( bus, &nothing, 1 ), ENXIO );
    CHECK( ioctl( bus, I2C_SLAVE, 0x59 ) == 0 && close( bus ) == 0 );
    FAILS( read( bus, got, 1 ), EBADF );
    CHECK( read( copy, got, 4 ) == 4 && memcmp( got, awake, 4 ) == 0 && write( copy, &idle, 1 ) == 1 );

    /* Threads, children, and programs that children become. */
    pthread_t threads[4];
    void* failed;
    for( int i = 0; i < 4; i++ )
    {
        CHECK( pthread_create( &threads[i], NULL, many, &copy ) == 0 );
    }
    int turn[2];
    CHECK( pipe( turn ) == 0 );
    pid_t pid = fork( ); /* while they talk; two processes are two hosts on the bus, so it waits for its turn */
    if( pid == 0 )
    {
        _exit( read( turn[0], got, 1 ) == 1 && whole( copy ) && whole( other ) ? 0 : 1 );
    }
    for( int i = 0; i < 4; i++ )
    {
        CHECK( pthread_join( threads[i], &failed ) == 0 && failed == NULL );
    }
    CHECK( write( turn[1], "", 1 ) == 1 && child( pid ) );
    if( ( pid = fork( ) ) == 0 )
    {
        char number[12];
        snprintf( number, sizeof number, "%d", copy );
        execl( argv[0], argv[0], number, NULL );
        _exit( 1 );
    }
    CHECK( child( pid ) );

    /* All other files are as ever, also one where the connection was. */
    char path[] = "other.XXXXXX";
    int file = mkstemp( path );
    CHECK( fchmod( file, 0 ) == 0 && close( file ) == 0 && unlink( path ) == 0 );
    for( int fd = 3; fd < 64; fd++ )
    {
        close( fd );
    }
    struct stat s;
    int files[8];
    for( int i = 0; i < 8; i++ )
    {
        file = files[i] = open( path, O_RDWR | O_CREAT, 0640 );
        CHECK( file >= 0 );
    }
    if( ( pid = fork( ) ) == 0 ) /* a daemon's child has them all, too */
    {
        for( int i = 0; i < 8; i++ )
        {
            CHECK( fstat( files[i], &s ) == 0 && S_ISREG( s.st_mode ) );
        }
        _exit( wrong );
    }
    CHECK( child( pid ) );
    CHECK( unlink( path ) == 0 && write( file, revision, 7 ) == 7 && lseek( file, 0, SEEK_SET ) == 0 );
    CHECK( read( file, got, 40 ) == 7 && memcmp( got, revision, 7 ) == 0 );
    bus = open( "/dev/i2c-1", how );
    CHECK( whole( bus ) && whole( bus ) );
    CHECK( fstat( file, &s ) == 0 && s.st_size == 7 && ( s.st_mode & 0777 & ~0640 ) == 0 && s.st_mode & 0600 );
    FAILS( open( "/dev/i2c-", O_RDWR ), ENOENT );
    FAILS( open( "/dev/i2c-1x", O_RDWR ), ENOENT );

    printf( "%d wrong\n", wrong );
    return wrong != 0;
}
