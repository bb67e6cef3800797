package qmp

import (
	"encoding/json"
	"fmt"
)

// Greeting is what QEMU said of itself when the connection opened.
type Greeting struct {
	// Major, Minor and Micro are QEMU's version.
	Major, Minor, Micro int
	// Package is the distributor's version text, often empty.
	Package string
	// Capabilities are the optional protocol features that QEMU offers.
	Capabilities []string
}

// String returns the version with the package text, such as
// "7.2.22 (Debian 1:7.2+dfsg-7)".
func (g Greeting) String() string {
	v := fmt.Sprintf("%d.%d.%d", g.Major, g.Minor, g.Micro)
	if g.Package != "" {
		v += " (" + g.Package + ")"
	}
	return v
}

// decodeGreeting reads the value of the greeting's QMP key.
func decodeGreeting(raw json.RawMessage) (*Greeting, error) {
	var w struct {
		Version *struct {
			QEMU struct {
				Major int `json:"major"`
				Minor int `json:"minor"`
				Micro int `json:"micro"`
			} `json:"qemu"`
			Package string `json:"package"`
		} `json:"version"`
		Capabilities []string `json:"capabilities"`
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, fmt.Errorf("decode greeting: %w", err)
	}
	if w.Version == nil {
		return nil, fmt.Errorf("decode greeting: no version")
	}
	return &Greeting{
		Major: w.Version.QEMU.Major, Minor: w.Version.QEMU.Minor, Micro: w.Version.QEMU.Micro,
		Package: w.Version.Package, Capabilities: w.Capabilities,
	}, nil
}
