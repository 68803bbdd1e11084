/* A host of the kit protocol on a UART: opens the terminal, sets DTR as such hosts do, says
 * a line, and prints the answer. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

int main( int argc, char** argv )
{
    int dtr = TIOCM_DTR, fd = argc == 3 ? open( argv[1], O_RDWR | O_NOCTTY ) : -1;
    struct termios t;
    if( fd < 0 || tcgetattr( fd, &t ) != 0 )
    {
        perror( "the terminal" );
        return 1;
    }
    cfmakeraw( &t );
    if( tcsetattr( fd, TCSANOW, &t ) != 0 || ioctl( fd, TIOCMBIS, &dtr ) != 0 )
    {
        perror( "DTR" );
        return 1;
    }
    dprintf( fd, "%s\n", argv[2] );
    for( char c = 0; c != '\n' && read( fd, &c, 1 ) == 1; )
    {
        putchar( c );
    }
    return 0;
}
