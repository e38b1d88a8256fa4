package main

import (
	"bufio"
	"fmt"
	"path/filepath"
	"slices"

	"perigee.example/bench/pinned"
)

// memory prints what a stored response of 1 KiB and an idle connection take of
// each server's memory: what it holds after less what it held before.
func memory(c *config) error {
	m := &mix{name: "memory", conns: 32, depth: 1}
	for i := range c.objects {
		from := bigFrom + i*64
		m.warm = append(m.warm, request{head: fill(bareHead, fmt.Sprintf("/o/%d/1024/%010d", from, i)), from: from, size: 1024})
	}
	m.requests = m.warm[:1]
	for file, list := range map[string][]request{m.file(c): m.requests, m.warmFile(c): m.warm} {
		if err := writeList(file, list); err != nil {
			return err
		}
	}
	// Twice, each time with servers that have just started: room that one leaves
	// in a heap would be taken by the other.
	idle := map[string]int64{}
	err := withServers(c, m, func(s *server) (err error) {
		idle[s.name], err = idleMemory(c, m, s)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("\nmemory: %d stored responses of 1 KiB; %d connections that have asked once and rest\n\n", c.objects, c.idle)
	fmt.Printf("| server | before MiB | with all stored MiB | octets a response beyond its 1,024 | octets an idle connection |\n| --- | --- | --- | --- | --- |\n")
	return withServers(c, m, func(s *server) error {
		held, err := storedMemory(c, m, s)
		if err != nil {
			return err
		}
		before, after := held[0], held[1]
		each := "–" // bodies are in files, or all memory was taken at the start
		if extra := (after-before)/int64(c.objects) - 1024; extra > 0 {
			each = fmt.Sprint(extra)
		}
		fmt.Printf("| %s | %d | %d | %s | %d |\n", s.title(), before>>20, after>>20, each, idle[s.name])
		return nil
	})
}

func withServers(c *config, m *mix, f func(*server) error) error {
	servers, err := startAll(c, m)
	defer func() {
		for _, s := range servers {
			s.Stop()
		}
	}()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if err := f(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// storedMemory is what a server holds before and after all is stored. A first
// connection's buffers are not a response's.
func storedMemory(c *config, m *mix, s *server) (held [2]int64, err error) {
	if _, err := load(c, s.port, m.file(c), 0.2, m.conns, 1, 0); err != nil {
		return held, err
	}
	if held[0], err = s.Memory(); err != nil {
		return held, err
	}
	if _, err := load(c, s.port, m.warmFile(c), 0, m.conns, 1, 0); err != nil {
		return held, err
	}
	held[1], err = s.Memory()
	return held, err
}

// idleMemory opens connections that ask once, and sees what they hold.
func idleMemory(c *config, m *mix, s *server) (int64, error) {
	if _, err := load(c, s.port, m.file(c), 0.2, m.conns, 1, 0); err != nil {
		return 0, err
	}
	before, err := s.Memory()
	if err != nil {
		return 0, err
	}
	list := filepath.Join(c.dir, "idle.list")
	// One response for all: what is stored is not a connection's.
	if err := writeList(list, slices.Repeat(m.requests, c.idle)); err != nil {
		return 0, err
	}
	cmd := pinned.Load(filepath.Join(c.dir, "httpload"), list, c.pool(), fmt.Sprint(s.port), "-1", fmt.Sprint(c.idle), "1", "0")
	hold, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_, readErr := bufio.NewReader(out).ReadString('\n')
	after, err := s.Memory()
	hold.Close()
	if waitErr := cmd.Wait(); waitErr != nil {
		return 0, waitErr
	}
	if readErr != nil {
		return 0, readErr
	}
	return (after - before) / int64(c.idle), err
}
