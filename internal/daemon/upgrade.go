package daemon

import (
	"os"
	"os/exec"
	"strings"
)

// startSuccessor starts this server's program anew, as its successor. The file
// may have been replaced meanwhile: that is what it is for. Under a service
// manager the new process belongs to the same service.
func (p *Program) startSuccessor() {
	if len(p.upgrade) == 0 {
		p.log.Warn("asked to start a successor, but this server was not started as a program")
		return
	}
	cmd := exec.Command(p.upgrade[0], p.upgrade[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	for _, variable := range os.Environ() {
		// It is about this process alone.
		if !strings.HasPrefix(variable, "WATCHDOG_PID=") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	if err := cmd.Start(); err != nil {
		p.log.Error("a successor could not be started; this server goes on", "error", err)
		return
	}
	p.log.Info("successor started", "process", cmd.Process.Pid)
	go func() { // not waited for: it outlives this process
		if err := cmd.Wait(); err != nil {
			p.log.Warn("the successor ended", "error", err)
		}
	}()
}
