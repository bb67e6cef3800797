package bench

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/maqet/maqet/driver/qemu"
)

// pullSize is the size of the image in bytes. It holds random bytes.
const pullSize = 256 << 20

// image is the manifest of what is pulled.
const image = `apiVersion: maqet.io/v1alpha1
kind: Image
metadata:
  name: big
spec: {source: %q, sha256: %s, format: raw}
`

// openPull compares fetching an image with the tools that people use for it.
func openPull(ctx context.Context, lab *Lab) (Bench, error) {
	if _, err := exec.LookPath("curl"); err != nil {
		return Bench{}, fmt.Errorf("%w: curl is not installed", ErrSkip)
	}
	s, err := lab.site("pull")
	if err != nil {
		return Bench{}, err
	}
	path := filepath.Join(s.raw, "big.raw")
	sum, err := random(path, pullSize)
	if err != nil {
		return Bench{}, err
	}
	url, closeServer, err := serve(ctx, s.raw)
	if err != nil {
		return Bench{}, err
	}
	url += "/big.raw"
	if err := s.write([]string{"big"}, func(int, string) string { return fmt.Sprintf(image, url, sum) }); err != nil {
		return Bench{}, errors.Join(err, closeServer())
	}
	fetched := filepath.Join(s.raw, "fetched.raw")
	script := "curl -sS -o " + qemu.QuoteShell([]string{fetched, url}) + " && sha256sum " + qemu.QuoteShell([]string{fetched})
	return Bench{
		Ours: Half{
			Before: func(context.Context) error {
				return errors.Join(os.RemoveAll(s.layout.State), os.RemoveAll(s.layout.Run))
			},
			Do: func(ctx context.Context) error { return s.maqet(ctx, "image", "pull", "-f", s.manifests) },
		},
		Raw: Half{
			Before: func(context.Context) error { return os.RemoveAll(fetched) },
			Do:     func(ctx context.Context) error { return lab.run(ctx, nil, "sh", "-c", script) },
		},
		Close: func(context.Context) error {
			return errors.Join(closeServer(), os.RemoveAll(s.layout.State), os.Remove(path))
		},
	}, nil
}

// random writes a file of random bytes and returns its digest.
func random(path string, size int64) (sum string, err error) {
	f, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("make an image to fetch: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	digest := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, digest), rand.Reader, size); err != nil {
		return "", fmt.Errorf("make an image to fetch: %w", err)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// serve serves a folder over HTTP on this computer alone.
func serve(ctx context.Context, dir string) (url string, closeServer func() error, err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("serve an image: %w", err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // it ends when it is closed
	return "http://" + listener.Addr().String(), server.Close, nil
}
