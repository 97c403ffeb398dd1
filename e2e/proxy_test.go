package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands between a program and an engine, and can make their connections as bad as a network may.
type proxy struct {
	to       string
	listener net.Listener
	mu       sync.Mutex
	open     map[*net.TCPConn]*net.TCPConn // from the program to the engine
	stalled  chan struct{}                 // closed when bytes pass again; nil while they do
	slow     bool                          // a little at a time
	closed   bool
	passing  sync.WaitGroup
}

// newProxy passes connections on to an address until the test ends.
func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: to, listener: l, open: map[*net.TCPConn]*net.TCPConn{}}
	p.passing.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.flow()
		p.cut()
		p.passing.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.passing.Go(func() { p.pass(conn.(*net.TCPConn)) })
	}
}

func (p *proxy) pass(client *net.TCPConn) {
	defer client.Close()
	conn, err := net.Dial("tcp", p.to)
	if err != nil {
		return // as if the engine refused
	}
	engine := conn.(*net.TCPConn)
	defer engine.Close()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.open[client] = engine
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.open, client)
		p.mu.Unlock()
	}()
	var answers sync.WaitGroup
	answers.Go(func() { p.copy(client, engine) })
	p.copy(engine, client)
	answers.Wait()
}

const (
	// slowBytes every slowStep are what passes of a slow connection in one direction, 20 KB a second.
	slowBytes = 1 << 10
	slowStep  = 50 * time.Millisecond
)

// copy passes bytes on while they may flow, until one side ends, and tells the other.
func (p *proxy) copy(to, from *net.TCPConn) {
	defer to.CloseWrite()
	buffer := make([]byte, 64<<10)
	for room := len(buffer); ; {
		n, err := from.Read(buffer[:room])
		p.mu.Lock()
		stalled, slow := p.stalled, p.slow
		p.mu.Unlock()
		if stalled != nil {
			<-stalled
		}
		if room = len(buffer); slow {
			time.Sleep(slowStep)
			room = slowBytes
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				_, _ = io.Copy(io.Discard, from)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// spoil makes connections as bad as it says: cut, half close, stall, slow. flow ends the last two.
func (p *proxy) spoil(how string) {
	switch how {
	case "cut":
		p.cut()
	case "half close":
		p.halfClose()
	case "stall":
		p.stall()
	case "slow":
		p.mu.Lock()
		defer p.mu.Unlock()
		p.slow = true
	}
}

// cut resets all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client, engine := range p.open {
		_ = client.SetLinger(0)
		_ = client.Close()
		_ = engine.Close() // an engine behind a network sees resets too, but the library's dies of them
	}
}

// halfClose ends one direction of all connections, from the engines' side.
func (p *proxy) halfClose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client := range p.open {
		_ = client.CloseWrite()
	}
}

// stall lets no byte pass until flow.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// flow lets bytes pass again.
func (p *proxy) flow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = false
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}
