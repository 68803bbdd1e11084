// Package deploy judges the units below deploy by systemd's own tools.
package deploy
