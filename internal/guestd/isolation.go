package guestd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes put guestd in a session and, for "namespaces", in namespaces of its own. Without
// root a user namespace comes first, in which the user is root and so may make the others
// (user_namespaces(7)).
func attributes(isolation string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if isolation != IsolationNamespaces {
		return attr
	}
	attr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	if os.Geteuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// isolate finishes from within what attributes began: a host name, and a /proc of its own.
func isolate(birth Birth) error {
	if birth.Isolation != IsolationNamespaces {
		return nil
	}
	if os.Getpid() != 1 {
		return errors.New("guestd was not started in a pid namespace of its own")
	}
	steps := []struct {
		name string
		err  func() error
	}{
		{"set the host name", func() error { return unix.Sethostname([]byte(birth.Name)) }},
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount /proc", func() error {
			return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}},
	}
	for _, step := range steps {
		if err := step.err(); err != nil {
			return explainIsolation(birth.Isolation, fmt.Errorf("%s: %w", step.name, err))
		}
	}
	return nil
}

// explainIsolation says why this host gives no namespaces, and what works instead.
func explainIsolation(isolation string, err error) error {
	if isolation != IsolationNamespaces {
		return err
	}
	why := "this user may not make namespaces here"
	switch {
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		why = "kernel.unprivileged_userns_clone is 0"
	case sysctl("user/max_user_namespaces") == "0":
		why = "user.max_user_namespaces is 0"
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		why = "kernel.apparmor_restrict_unprivileged_userns is 1"
	case os.Geteuid() == 0:
		why = "root lacks CAP_SYS_ADMIN here, as in most containers"
	}
	return fmt.Errorf("isolation = %q is not possible on this host (%s): %w; isolation = %q works without", isolation, why, err, IsolationProcess)
}

func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
