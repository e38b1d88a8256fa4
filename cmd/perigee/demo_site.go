package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// demoBigBytes is the size of the site's larger file: a few MiB, so that
// ranges and streaming are real and a slow machine still starts at once.
const demoBigBytes = 3 << 20

// writeDemoSite makes a small site of HTML, CSS, JS, images and a larger file.
// title appears on its pages.
func writeDemoSite(dir, title string) error {
	picture, err := demoPicture()
	if err != nil {
		return err
	}
	page := func(heading, text string) []byte {
		return fmt.Appendf(nil, `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>%s</title>
<link rel="stylesheet" href="/css/site.css"><script src="/js/app-3f9a1c77.js" defer></script></head>
<body><h1>%s</h1><p>%s</p><p><img src="/img/orbit.png" width="64" height="64" alt="an orbit"></p>
<p><a href="/">home</a> <a href="/about.html">about</a> <a href="/big.bin">a larger file</a></p></body>
</html>
`, title, heading, text)
	}
	big := make([]byte, demoBigBytes)
	rng := rand.NewChaCha8([32]byte{1}) // always the same bytes: a second push sends nothing
	if _, err := rng.Read(big); err != nil {
		return err
	}
	files := map[string][]byte{
		"index.html":         page(title, "This is the first edition."),
		"about.html":         page("about "+title, "Made by perigee demo."),
		"404.html":           page("not here", "There is no such page."),
		"css/site.css":       []byte("body { font: 1rem/1.5 sans-serif; margin: 3rem auto; max-width: 40rem }\nh1 { color: #24486b }\n"),
		"js/app-3f9a1c77.js": []byte("document.addEventListener('DOMContentLoaded', () => console.log('served by', location.host))\n"),
		"img/orbit.png":      picture,
		"img/orbit.svg":      []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><ellipse cx="32" cy="32" rx="30" ry="18" fill="none" stroke="#24486b"/><circle cx="20" cy="32" r="6"/></svg>` + "\n"),
		"big.bin":            big,
	}
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// demoPicture draws a planet and an ellipse around it.
func demoPicture() ([]byte, error) {
	const side = 64
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			dx, dy := float64(x-side/2)/30, float64(y-side/2)/18
			px, py := float64(x-20), float64(y-side/2)
			switch r := dx*dx + dy*dy; {
			case px*px+py*py < 36:
				img.Set(x, y, color.NRGBA{20, 20, 20, 255})
			case r > 0.92 && r < 1.05:
				img.Set(x, y, color.NRGBA{0x24, 0x48, 0x6b, 255})
			}
		}
	}
	var buf bytes.Buffer
	err := png.Encode(&buf, img)
	return buf.Bytes(), err
}
