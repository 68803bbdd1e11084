package secret

import (
	"errors"

	"golang.org/x/sys/unix"
)

// newRegion maps size bytes with the best protection that the kernel grants.
func newRegion(size int) (region, error) {
	if r, err := hiddenRegion(size); err == nil {
		return r, nil
	}
	// No memfd_secret (before Linux 5.14, switched off, or over the limit of
	// locked memory).
	return anonymousRegion(size)
}

// hiddenRegion maps memory of memfd_secret(2): locked, outside of dumps, and
// taken out of the kernel's direct map. A forked child does not get it.
func hiddenRegion(size int) (region, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return region{}, err
	}
	defer func() { _ = unix.Close(fd) }() // the mapping stays
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return region{}, err
	}
	pages, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return region{}, err
	}
	if err := unix.Madvise(pages, unix.MADV_DONTFORK); err != nil {
		return region{}, errors.Join(err, unix.Munmap(pages))
	}
	return region{pages, Hidden, func() error { return unix.Munmap(pages) }}, nil
}

// anonymousRegion maps private memory that core dumps leave out and a forked
// child finds empty, locked if the limit allows.
func anonymousRegion(size int) (region, error) {
	pages, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return region{}, err
	}
	unmap := func() error { return unix.Munmap(pages) }
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_WIPEONFORK} {
		if err := unix.Madvise(pages, advice); err != nil {
			return region{}, errors.Join(err, unmap())
		}
	}
	if err := unix.Mlock(pages); err != nil {
		return region{pages, Undumped, unmap}, nil //nolint:nilerr // told by Protection
	}
	return region{pages, Locked, unmap}, nil
}
