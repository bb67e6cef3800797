package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// TestScripts runs testdata/script: what a user types, and what they then see.
// Besides testscript's own commands the scripts have:
//
//	code N COMMAND...          run and insist on exit code N
//	eventually REGEXP CMD...   run again until it succeeds and stdout matches
//	qemus N [VM]               insist on N QEMU processes (of VM)
//	endvirtiofsd FS VM         kill the virtiofsd of a filesystem of VM
//	novirtiofsd VM             wait until VM has none
//	signal SIGNAL VM           send a signal to the VM's QEMU
//	pid FILE VM                write the pid of the VM's QEMU into FILE
//	guest FILE...              put the tiny guest's paths for KERNEL and INITRD, and for
//	                           AGENT_INITRD that of the guest with an agent
//	echoguest FILE             write the disk of the guest that echoes what is typed
//	interrupt FILE N REGEXP CMD...
//	                           run maqet, send it SIGINT once its output matches, insist
//	                           on exit code N, and write what it printed into FILE
//
// and the variables $KERNEL, $INITRD, $AGENT_INITRD, $STATE, $RUN, $FULL_PATH, and $MAQET_ONLY, a PATH
// with nothing but maqet.
func TestScripts(t *testing.T) {
	tiny, agent := guest.Path(t), guest.AgentPath(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			t, ok := env.T().(testing.TB)
			if !ok {
				return errors.New("testscript's T is no testing.TB any more")
			}
			h := host.New(t, binary)
			env.Values["host"] = h
			env.Vars = append(env.Vars, h.Env()...)
			env.Setenv("STATE", h.State)
			env.Setenv("RUN", h.Run)
			env.Setenv("KERNEL", tiny.Kernel)
			env.Setenv("INITRD", tiny.Initrd)
			env.Setenv("AGENT_INITRD", agent.Initrd)
			env.Setenv("MAQET_ONLY", filepath.Dir(binary))
			env.Setenv("FULL_PATH", filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("PATH", env.Getenv("FULL_PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "eventually": cmdEventually, "qemus": cmdQEMUs, "signal": cmdSignal, "pid": cmdPID, "interrupt": cmdInterrupt,
			"endvirtiofsd": cmdEndVirtiofsd, "novirtiofsd": cmdNoVirtiofsd,
			"echoguest": cmdEchoGuest,
			"guest":     func(ts *testscript.TestScript, neg bool, args []string) { cmdGuest(ts, tiny, agent, neg, args) },
		},
	})
}
