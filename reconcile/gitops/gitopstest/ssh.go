package gitopstest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// SSH serves a repository over ssh to the holder of one key.
type SSH struct {
	URL        string // of the repository
	Addr       string
	KeyFile    string // private key that may read
	KnownHosts string // file with the host's key
}

// ServeSSH serves a repository over ssh until the test ends. It runs what it is asked for, if that is git-upload-pack.
func (r *Repo) ServeSSH() *SSH {
	t := r.t
	t.Helper()
	host, _ := Key(t)
	client, keyFile := Key(t)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.PublicKey().Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { serveConn(conn, config, r.Dir) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	s := &SSH{Addr: listener.Addr().String(), KeyFile: keyFile, KnownHosts: filepath.Join(t.TempDir(), "known_hosts")}
	s.URL = "ssh://git@" + s.Addr + r.Dir
	s.Know(t, host.PublicKey())
	return s
}

// Know makes a key the one that the host is known by.
func (s *SSH) Know(t testing.TB, key ssh.PublicKey) {
	t.Helper()
	if err := os.WriteFile(s.KnownHosts, []byte(knownhosts.Line([]string{s.Addr}, key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Key makes a key and a file with it.
func Key(t testing.TB) (signer ssh.Signer, file string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if signer, err = ssh.NewSignerFromKey(private); err != nil {
		t.Fatal(err)
	}
	return signer, file
}

func serveConn(tcp net.Conn, config *ssh.ServerConfig, dir string) {
	defer tcp.Close()
	conn, channels, requests, err := ssh.NewServerConn(tcp, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		for request := range requests {
			if request.Type != "exec" {
				request.Reply(false, nil)
				continue
			}
			request.Reply(true, nil)
			code := upload(channel, request.Payload, dir)
			channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
			break
		}
		channel.Close()
	}
}

func upload(channel ssh.Channel, payload []byte, dir string) uint32 {
	var command struct{ Line string }
	if err := ssh.Unmarshal(payload, &command); err != nil || command.Line != "git-upload-pack '"+dir+"'" {
		return 127
	}
	cmd := exec.Command("git-upload-pack", dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = channel, channel, channel.Stderr()
	if err := cmd.Run(); err != nil {
		return 1
	}
	return 0
}
