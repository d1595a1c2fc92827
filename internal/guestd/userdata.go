package guestd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxUserDataTail is how much of a failed script's output its error quotes.
const maxUserDataTail = 2 << 10

// runUserData runs user data that is a script ("#!"), once, as cloud-init does; other user data is
// only kept. What the script leaves running in the background stays.
func (s *server) runUserData(ctx context.Context) error {
	if s.birth.UserData == "" {
		return nil
	}
	path := filepath.Join(s.dir, userDataFile)
	if err := os.WriteFile(path, []byte(s.birth.UserData), 0o700); err != nil {
		return err
	}
	if !strings.HasPrefix(s.birth.UserData, "#!") {
		return nil
	}
	log, err := os.OpenFile(path+".log", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(path)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.home, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	env := s.environment()
	for _, key := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, key+"="+env[key])
	}
	if err := s.children.start(cmd); err != nil {
		return fmt.Errorf("run user_data: %w", err)
	}
	defer context.AfterFunc(ctx, func() { unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })()
	if err := s.children.wait(cmd); err != nil {
		return fmt.Errorf("user_data failed: %w", errors.Join(err, errors.New(endOf(log))))
	}
	return nil
}

func endOf(log *os.File) string {
	info, err := log.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, maxUserDataTail)
	n, _ := log.ReadAt(buf, max(0, info.Size()-maxUserDataTail))
	return string(buf[:n])
}
