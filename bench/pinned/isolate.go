package pinned

import (
	"os"
	"os/exec"
	"syscall"
)

// isolated is set for the program that Isolate has started again.
const isolated = "PERIGEE_BENCH_ISOLATED"

// Isolate starts the running program again in a network of its own, in which
// there is the loopback alone and TCP's congestion control is cubic: bbr, where
// it is the default, paces by timers that cost more than what is measured. It
// returns at once in the program that it started, and where none can be (it
// needs root, unshare and ip); then alone says that it is not so.
func Isolate() (alone bool) {
	if os.Getenv(isolated) != "" {
		return true
	}
	const inside = `ip link set lo up && echo cubic >/proc/sys/net/ipv4/tcp_congestion_control && exec "$@"`
	if exec.Command("unshare", "-n", "sh", "-c", inside, "sh", "true").Run() != nil {
		return false
	}
	self, err := os.Executable()
	if err != nil {
		return false
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return false
	}
	args := append([]string{"unshare", "-n", "sh", "-c", inside, "sh", self}, os.Args[1:]...)
	_ = syscall.Exec(unshare, args, append(os.Environ(), isolated+"=1"))
	return false
}
