package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"joinery/internal/firmware"
	"joinery/internal/harden"
	"joinery/internal/keyring/hsm"
)

// runFirmware is the program where it signs a maker's firmware, for `joinctl firmware`.
func runFirmware(stdin io.Reader, answers io.Writer, stderr io.Writer) int {
	if err := harden.Process(); err != nil {
		fmt.Fprintf(stderr, "joinery-hsm: %v\n", err)
		return 1
	}
	harden.LockMemory()
	var job firmware.TokenJob
	var answer firmware.TokenAnswer
	err := json.NewDecoder(io.LimitReader(stdin, maxJob)).Decode(&job)
	if err == nil {
		answer, err = doFirmware(job)
	}
	if err != nil {
		answer = firmware.TokenAnswer{Error: err.Error()}
	}
	if err := json.NewEncoder(answers).Encode(answer); err != nil {
		return told(err, stderr)
	}
	return 0
}

// doFirmware reads the PIN, opens the token by one try, and makes or uses the key.
func doFirmware(job firmware.TokenJob) (answer firmware.TokenAnswer, err error) {
	if err := job.Key.Check(); err != nil {
		return answer, err
	}
	if len(job.Digests) > firmware.MaxDigests {
		return answer, errors.New("too much is to be signed at once")
	}
	pin, err := pinFrom(job.Key.PINFile, othersMask)
	if err != nil {
		return answer, err
	}
	defer clear(pin)
	with := hsm.UseFirmwareKey
	if job.Make {
		with = hsm.MakeFirmwareKey
	}
	opt := hsm.Options{Module: job.Key.Module, InitArgs: job.Key.InitArgs, Token: job.Key.Token, PIN: pin}
	err = with(opt, job.Key.Name, func(k hsm.FirmwareKey) error {
		answer.PublicKey = k.Public
		for _, d := range job.Digests {
			if len(d) != 32 {
				return errors.New("want digests of 32 bytes")
			}
			s, err := k.Sign([32]byte(d))
			if err != nil {
				return err
			}
			answer.Signatures = append(answer.Signatures, s[:])
		}
		return nil
	})
	if err != nil {
		return answer, fmt.Errorf("token %q: %w", job.Key.Token, err)
	}
	return answer, nil
}
