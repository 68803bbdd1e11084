package daemon

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much garbage the collector lets gather, in percent of what
// lives. What lives is a few MiB, mostly buffers of connections, so that collecting
// more often costs about a hundredth of a join, and saves a tenth of the memory.
const gcPercent = 60

// thriftily sets how memory is collected, unless the operator did with GOGC.
func thriftily() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// giveBack returns to the kernel what only the start needed: memory, and pages of
// the program's file, which are read again where they are.
func giveBack() {
	debug.FreeOSMemory()
	forgetProgram()
}
