//go:build !linux

package bigmem

import "errors"

// Without mremap a block is Go memory.
const canMap = false

func mapped(int) ([]byte, error) { return nil, errors.ErrUnsupported }

func grow([]byte, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) {}

func reserve(int, bool) ([]byte, error) { return nil, errors.ErrUnsupported }

func giveBack([]byte) {}
