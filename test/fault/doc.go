// Package fault kills real servers and looks at what is left.
package fault
