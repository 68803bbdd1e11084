//go:build race

package backend

// raceDetector: under it sync.Pool forgets at random.
const raceDetector = true
