// Package browser opens the pages of a real server in a real Chromium, whose
// authenticator is made by Chromium itself, and uses them as people do.
package browser
