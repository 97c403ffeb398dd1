package embedded

import (
	"io"
	"net"
	"time"
)

// relay passes connections on to the engine's native port for as long as the process lives. Of a connection that is reset
// between two queries the library's engine dies ("Terminate called for uncaught exception"), and the connections of a client
// that is killed are reset. Behind the relay the engine only ever sees them end.
func relay(clients net.Listener, engine string) {
	for {
		client, err := clients.Accept()
		if err != nil {
			time.Sleep(pollStep) // out of file descriptors, for now
			continue
		}
		go pass(client.(*net.TCPConn), engine)
	}
}

// pass returns when both sides are done. What the engine says to a client that is gone is read to its end: closing before
// that would reset the connection.
func pass(client *net.TCPConn, addr string) {
	defer client.Close()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return // the engine does not listen, and the client sees as much
	}
	engine := conn.(*net.TCPConn)
	defer engine.Close()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		io.Copy(client, engine)
		client.CloseWrite()
		io.Copy(io.Discard, engine)
	}()
	io.Copy(engine, client)
	engine.CloseWrite()
	<-answered
}
