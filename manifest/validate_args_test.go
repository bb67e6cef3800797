package manifest

import (
	"strings"
	"testing"
)

func TestExtraArgs_whatTakesTheMachineOutOfHand_isRefused(t *testing.T) {
	const head = "apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: web}\nspec:\n  emulator: {extraArgs: "
	cases := map[string]string{ // the arguments, and what the fault says; nothing for good ones
		`["-rtc", "base=utc"]`:                           "",
		`["-rtc", "base=utc", "-no-hpet"]`:               "",
		`["-rtc", "base=utc", "/srv/other.img"]`:         `extraArgs[2]: "/srv/other.img" follows a value`,
		`["-no-reboot"]`:                                 `"-no-reboot" is not for extraArgs`,
		`["--no-shutdown"]`:                              `"--no-shutdown" is not for extraArgs`,
		`["-serial", "none", "other.img", "-uuid", "x"]`: `extraArgs[2]: "other.img" follows a value`,
	}
	for args, want := range cases {
		t.Run(args, func(t *testing.T) {
			got := loadBytes([]byte(head + args + "}\n")).faults
			if want == "" && len(got) > 0 || !strings.Contains(got.Error(), want) {
				t.Errorf("faults = %q, want %q", got.Error(), want)
			}
		})
	}
}
