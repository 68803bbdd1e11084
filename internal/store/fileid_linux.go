package store

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileIdentity tells a file from its copies: its inode, and when it was born,
// where the file system says. The device is left out, since its number may be
// another after each start of the machine.
func fileIdentity(path string, info fs.FileInfo) string {
	var id string
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		id = fmt.Sprintf("inode %d", stat.Ino)
	}
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &x); err == nil && x.Mask&unix.STATX_BTIME != 0 {
		id += fmt.Sprintf(" born %d.%09d", x.Btime.Sec, x.Btime.Nsec)
	}
	return id
}

// sameFile compares two identities in what both of them know.
func sameFile(a, b string) bool {
	inodeA, bornA, _ := strings.Cut(a, " born ")
	inodeB, bornB, _ := strings.Cut(b, " born ")
	return inodeA == inodeB && (bornA == bornB || bornA == "" || bornB == "")
}
