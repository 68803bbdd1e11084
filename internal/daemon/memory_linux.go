package daemon

import (
	"bufio"
	"os"
	"reflect"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetProgram takes the pages of the program's own file that were read so far
// out of this process. The kernel maps what surrounds each page that is touched,
// so that after a start it is nearly all of the file. They stay in the kernel's
// memory, and those that are used come back at once. It gives the number of bytes
// that the mappings have.
func forgetProgram() (mapped int) {
	for _, m := range programMappings() {
		// madvise(2): of a mapping of a file of which no page is our own nothing can be
		// lost.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno == 0 {
			mapped += int(m.to - m.from)
		}
	}
	return mapped
}

type mapping struct{ from, to uintptr }

// programMappings gives the mappings of the file that this code is in that cannot
// be written to and never were: instructions and constants (proc_pid_smaps(5)).
// What a dynamic linker relocated and then protected (RELRO) is in such a mapping,
// too, but no longer as it is in the file: it has anonymous pages.
func programMappings() (all []mapping) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	here := reflect.ValueOf(forgetProgram).Pointer()
	files := map[string][]mapping{}
	program, file := "", ""
	var m mapping
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) > 0 && !strings.HasSuffix(fields[0], ":"): // from-to, rights, offset, device, inode, path
			file = ""
			first, last, _ := strings.Cut(fields[0], "-")
			from, err1 := strconv.ParseUint(first, 16, 64)
			to, err2 := strconv.ParseUint(last, 16, 64)
			if err1 != nil || err2 != nil || len(fields) < 6 || strings.Contains(fields[1], "w") {
				continue
			}
			m, file = mapping{uintptr(from), uintptr(to)}, fields[3]+" "+fields[4]
			if m.from <= here && here < m.to {
				program = file
			}
		case len(fields) > 1 && fields[0] == "Anonymous:" && fields[1] == "0" && file != "":
			files[file] = append(files[file], m)
		}
	}
	return files[program]
}
