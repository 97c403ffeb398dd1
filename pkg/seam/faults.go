//go:build faults

package seam

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Before and After are the seams around an effect on something. They are counted under names such as "before insert selves".
// SEAM_PLAN says where and how this process ends, "before insert selves,3,kill" or "...,stop" the third time; of several, with
// ; between them, wherever it comes to first. SEAM_LOG is a file to which every name is appended when it is come to first, and what is done before it is done.
func Before(e Effect, on string) { plan().at("before", e, on) }

// After is the other one.
func After(e Effect, on string) { plan().at("after", e, on) }

// Taste dies of an event that holds a certain word, as SEAM_POISON says: "crash,WORD", "hang,WORD" or "exhaust,WORD", which takes
// memory until there is none.
func Taste(event []byte) {
	if p := poison(); p.word == "" || !bytes.Contains(event, []byte(p.word)) {
		return
	}
	switch poison().how {
	case "crash":
		panic("poison")
	case "hang":
		for {
			runtime.Gosched()
		}
	case "exhaust":
		for taken := [][]byte{}; ; {
			block := make([]byte, 64<<20)
			for i := 0; i < len(block); i += os.Getpagesize() {
				block[i] = 1
			}
			taken = append(taken, block)
		}
	}
}

type poisonous struct{ how, word string }

var poison = sync.OnceValue(func() (p poisonous) {
	p.how, p.word, _ = strings.Cut(os.Getenv("SEAM_POISON"), ",")
	return p
})

var plan = sync.OnceValue(readPlan)

type planned struct {
	mu    sync.Mutex
	seen  map[string]int
	falls map[string]fall // by seam
	log   *os.File
}

// fall is how, and at the how manyeth time, a process falls at a seam.
type fall struct {
	count  int
	signal syscall.Signal
}

func readPlan() *planned {
	p := &planned{seen: map[string]int{}, falls: map[string]fall{}}
	if path := os.Getenv("SEAM_LOG"); path != "" {
		p.log, _ = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	}
	for one := range strings.SplitSeq(os.Getenv("SEAM_PLAN"), ";") {
		parts := strings.Split(one, ",")
		if len(parts) != 3 {
			continue
		}
		count, _ := strconv.Atoi(parts[1])
		signal := syscall.SIGKILL
		if parts[2] == "stop" {
			signal = syscall.SIGSTOP
		}
		p.falls[parts[0]] = fall{count, signal}
	}
	return p
}

// at never returns when the process is to end here.
func (p *planned) at(when string, e Effect, on string) {
	name := when + " " + string(e) + " " + short(on)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[name]++
	n := p.seen[name]
	if n == 1 {
		p.say("reached " + name)
	}
	if fall, ok := p.falls[name]; ok && n == fall.count {
		p.say("fired " + name)
		clear(p.falls)
		_ = syscall.Kill(os.Getpid(), fall.signal)
		if fall.signal == syscall.SIGKILL {
			select {}
		}
	}
}

// short leaves what a subject has besides its stream: "social.mentions" of "social.mentions.oncology.dach".
func short(on string) string {
	parts := strings.SplitN(on, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

func (p *planned) say(line string) {
	if p.log != nil {
		fmt.Fprintln(p.log, line)
	}
}
