// Package guestd is the guest of the bundled `local` module: a real sandbox on this host. It
// exists so that the whole loop (Terraform, SSH, probes, leases, kill -9) can run and be tested
// anywhere, with nothing to download and no privilege needed.
//
// A guest is a process of our own binary in its own session and directory. It serves SSH (exec,
// terminal, SFTP) on a loopback port with a host key of its own, and lets in the authorized keys
// that it was born with: plain keys, and certificates of `cert-authority` keys whose principal is
// "<name>.<incarnation>". There are no passwords and no port forwarding. It outlives the command
// that started it and the daemon, and ends by Stop alone.
//
// Its directory (0700) holds
//
//	guestd.lock  locked for as long as the guest lives; what makes a directory a guest's
//	birth.json   what the guest was born from (0600)
//	host_key     its private host key (0600)
//	guest.json   Info; written once it answers
//	guestd.log   its log, bounded
//	user_data    if user data began with "#!": run once at birth, before the guest is ready
//	home/        HOME of every session
//
// Every process of a guest carries GREENROOM_GUEST_DIR in its environment. That is how Stop finds
// those that left their session or outlived a killed guestd; what a process does to hide (an empty
// environment and a new session, after guestd was killed) only isolation "namespaces" defeats.
//
// # Between leases
//
// A plain authorized key (the server's own; never a lease's certificate) may run the special exec
// command "greenroom-guest-reset": it ends all other processes of the guest, closes the
// connections of certificate users, and refuses from then on certificates signed before (their
// serial is the time of signing, see ssh.Authority). The guest offers it in its attribute "reset".
package guestd

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"greenroom/internal/ssh"
)

// Isolation of a guest from its host.
const (
	// IsolationProcess shares everything but session, directory and environment.
	IsolationProcess = "process"
	// IsolationNamespaces adds pid, mount and uts namespaces, and a user namespace unless root.
	IsolationNamespaces = "namespaces"
)

// ErrNoGuest says that a directory holds no living guest.
var ErrNoGuest = errors.New("no living guest")

const (
	// dirVar marks every process of a guest; see members.
	dirVar       = "GREENROOM_GUEST_DIR"
	loopback     = "127.0.0.1"
	maxJSONBytes = 1 << 20

	lockFile     = "guestd.lock"
	birthFile    = "birth.json"
	hostKeyFile  = "host_key"
	infoFile     = "guest.json"
	logFile      = "guestd.log"
	userDataFile = "user_data"
	homeDir      = "home"
)

// Birth is what a guest is born from. It never changes afterwards.
type Birth struct {
	Name        string `json:"name"`
	Incarnation int    `json:"incarnation"`
	Isolation   string `json:"isolation"`
	// AuthorizedKeys are lines of authorized_keys format (sshd(8)); the one option allowed is
	// cert-authority.
	AuthorizedKeys []string `json:"authorized_keys"`
	UserData       string   `json:"user_data,omitempty"`
}

var guestName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// Validate tells what is wrong with b in one error.
func (b Birth) Validate() error {
	var faults []error
	if !guestName.MatchString(b.Name) {
		faults = append(faults, fmt.Errorf("guest name %q: allowed are 1 to 63 letters, digits, - and _, beginning with a letter or digit", b.Name))
	}
	if b.Incarnation < 1 {
		faults = append(faults, fmt.Errorf("incarnation %d: it counts from 1", b.Incarnation))
	}
	if !slices.Contains([]string{IsolationProcess, IsolationNamespaces}, b.Isolation) {
		faults = append(faults, fmt.Errorf("isolation %q: allowed are %q and %q", b.Isolation, IsolationProcess, IsolationNamespaces))
	}
	if _, err := parseKeys(b.AuthorizedKeys); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// principal is what a certificate must name to be let in.
func (b Birth) principal() string { return fmt.Sprintf("%s.%d", b.Name, b.Incarnation) }

// Info is a living guest as the rest of the world sees it: guest.json.
type Info struct {
	Name        string `json:"name"`
	Incarnation int    `json:"incarnation"`
	ID          string `json:"id"`
	Host        string `json:"host"`
	Port        int    `json:"port"`
	User        string `json:"user"`
	// HostKey is a line of authorized_keys format.
	HostKey string `json:"host_key"`
	// PID is guestd's, as the host counts.
	PID        int               `json:"pid"`
	Started    time.Time         `json:"started"`
	Attributes map[string]string `json:"attributes"`
}

// Target is where and as whom the guest answers.
func (i Info) Target() ssh.Target {
	return ssh.Target{Host: i.Host, Port: i.Port, User: i.User, HostKey: i.HostKey}
}

// ReadInfo reads guest.json in dir. It does not tell whether the guest lives; see Status.
func ReadInfo(dir string) (Info, error) {
	text, err := readBounded(filepath.Join(dir, infoFile))
	if err != nil {
		return Info{}, err
	}
	return parseInfo(text)
}

func parseInfo(text []byte) (Info, error) {
	var info Info
	if err := json.Unmarshal(text, &info); err != nil {
		return Info{}, fmt.Errorf("%s is no guest's: %w", infoFile, err)
	}
	// A pid of 1, 0 or less would mean init, one's own group or everybody to whoever signals it.
	if info.Name == "" || info.Host == "" || info.Port < 1 || info.Port > 65535 || info.PID < 2 {
		return Info{}, fmt.Errorf("%s is incomplete: name %q, host %q, port %d, pid %d", infoFile, info.Name, info.Host, info.Port, info.PID)
	}
	return info, nil
}

// readBirth reads what Start left for guestd.
func readBirth(dir string) (Birth, error) {
	text, err := readBounded(filepath.Join(dir, birthFile))
	if err != nil {
		return Birth{}, err
	}
	return ParseBirth(text)
}

// ParseBirth reads a birth from JSON, as `guestd start --spec` does. It is not validated yet.
func ParseBirth(text []byte) (Birth, error) {
	var birth Birth
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&birth); err != nil {
		return Birth{}, fmt.Errorf("read the guest's spec: %w", err)
	}
	return birth, nil
}
