package chip

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// unhex reads hexadecimal digits.
func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lines gives the lines of a file under testdata, without comments.
func lines(t testing.TB, name string) (out [][]string) {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 0 && fields[0] != "#" {
			out = append(out, fields)
		}
	}
	return out
}

const (
	nwkKeyText = "2B7E151628AED2A6ABF7158809CF4F3C"
	appKeyText = "000102030405060708090A0B0C0D0E0F"
)

// tnglora makes the chip of the recording.
func tnglora(t testing.TB, o Options) *Chip {
	t.Helper()
	m := TNGLORA([SerialSize]byte(unhex(t, "01238ebe20080bd527")))
	put := func(slot int, data []byte) {
		if err := m.SetSlot(slot, data); err != nil {
			t.Fatal(err)
		}
	}
	put(0, unhex(t, appKeyText+nwkKeyText))
	put(9, append(unhex(t, "70B3D57ED0000000"), make([]byte, 64)...))
	put(10, append([]byte("0004A310001FF9DA"), make([]byte, 56)...))
	return New(m, o)
}

// send executes a command whose answer is known.
func send(t testing.TB, c *Chip, packet, answer string) {
	t.Helper()
	if got := c.Execute(unhex(t, packet)); hex.EncodeToString(got) != answer {
		t.Fatalf("%v %s: got %x, want %s", Opcode(unhex(t, packet[2:4])[0]), packet, got, answer)
	}
}

// Each recorded command gets the recorded answer.
func TestRecordedJoin(t *testing.T) {
	c := tnglora(t, Options{})
	var packet, answer string
	n := 0
	for _, l := range lines(t, "join-1.0.txt") {
		switch {
		case l[0] == "write":
			packet, answer = l[1], ""
		case l[0] == "read" && packet != "":
			answer += l[3]
		case l[0] == "idle":
			send(t, c, packet, answer)
			packet = ""
			n++
		}
	}
	if n != 29 {
		t.Errorf("%d commands were recorded", n)
	}
	for slot, want := range map[int]string{
		2: "5d8e896d0046179ae1d24e23380e04a3", 3: "58cd4c5c9992f0adc522f937daf9c352",
		4: "58cd4c5c9992f0adc522f937daf9c352", 5: "58cd4c5c9992f0adc522f937daf9c352",
	} {
		if got := hex.EncodeToString(c.nv.slot(slot)[:32]); got != want+strings.Repeat("00", 16) {
			t.Errorf("slot %d is not the session key", slot)
		}
	}
}

// The commands of a 1.1 device, and the keys that they leave. The AppSKey is what its
// driver never asks for.
func TestRecorded11(t *testing.T) {
	c := tnglora(t, Options{})
	const ok = "04000340"
	send(t, c, "1b562a00060100000006daf91f0010a30400000000000000005009", ok)
	send(t, c, "1b562a00070100000005daf91f0010a30400000000000000005403", ok)
	send(t, c, "1b562a00040100000003563412000000d07ed5b3702a000000c6fe", ok)
	kdf := func(target byte, block string) {
		t.Helper()
		data := append([]byte{1, 0, 0, 0}, unhex(t, block)...)
		if _, err := Answer(c.Execute(Command(OpKDF, 0x2A, uint16(target)<<8, data...))); err != nil {
			t.Fatal(err)
		}
	}
	kdf(5, "01563412000000d07ed5b3702a000000")
	kdf(3, "04563412000000d07ed5b3702a000000")
	for slot, want := range map[int]string{
		6: "7c77b8e0f9751b678f68cd5065411906", 7: "0989f104e20421d256d541cd2c7f4cd5",
		5: "80ca110a1a1b1f5d1e27fee52b316846", 4: "54813d8e35cd038100ceaac33c96683a", 3: "0bf29c88e7b6ccf67fdd5b3b17327aca",
	} {
		if got := hex.EncodeToString(c.nv.slot(slot)[:16]); got != want {
			t.Errorf("slot %d is not the key of the vector", slot)
		}
	}
	// What a driver should do for AppSKey: the same from block 0.
	data := append([]byte{0, 0, 0, 0}, unhex(t, "02563412000000d07ed5b3702a000000")...)
	if _, err := Answer(c.Execute(Command(OpKDF, 0x2A, 0x0200, data...))); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(c.nv.slot(2)[:16]); got != "69f50b01069cc634f114c2f19378e7d7" {
		t.Error("slot 2 is not the AppSKey of the vector")
	}
}

// The answer to a self-test that failed after a wake is 040740c2, whatever libraries
// compare with.
func TestStatusPackets(t *testing.T) {
	for s, want := range map[Status]string{
		OK: "04000340", Miscompare: "040100c3", BadParse: "04038342", ECCFault: "0405c343", SelfTested: "040740c2",
		Health: "040860c0", Refused: "040f2342", Awake: "04113343", Watchdog: "04ee3141", BadCRC: "04ff0142",
	} {
		if got := hex.EncodeToString(s.Packet()); got != want {
			t.Errorf("%v: got %s, want %s", s, got, want)
		}
		if _, err := Answer(s.Packet()); (err == nil) != (s == OK) {
			t.Errorf("%v: %v", s, err)
		}
	}
}

// The vector of the project's rekeying by DeriveKey, with packets that were recorded.
func TestRecordedDeriveKey(t *testing.T) {
	m := TNGLORA([SerialSize]byte(unhex(t, "0123114e171b98b427")))
	k13 := make([]byte, 32)
	for i := range k13 {
		k13[i] = byte(i)
	}
	if err := m.SetSlot(13, k13); err != nil {
		t.Fatal(err)
	}
	c := New(m, Options{})
	temp := unhex(t, "9bbc21e7541d9f637eb37c2cd686d67ee6bccc1a1f966eee9ef6a891f181e7d2")
	mac := unhex(t, "fb2307fa1cbfe5164aae73e87179b269c7ef3fb91a4cf86979e6a81b72b0f3b8")
	if p := hex.EncodeToString(Command(OpNonce, 3, 0, temp...)); !strings.HasPrefix(p, "27160300009bbc21e7") || !strings.HasSuffix(p, "8cf6") {
		t.Errorf("Nonce is %s", p)
	}
	if p := hex.EncodeToString(Command(OpDeriveKey, 4, 0, mac...)); !strings.HasPrefix(p, "271c040000fb2307fa") || !strings.HasSuffix(p, "dc05") {
		t.Errorf("DeriveKey is %s", p)
	}
	c.Execute(Command(OpNonce, 3, 0, temp...))
	send(t, c, hex.EncodeToString(Command(OpDeriveKey, 4, 0, mac...)), "04000340")
	if got := hex.EncodeToString(c.nv.slot(0)[:32]); got != "f68df7c9b3b93c93df858fa665175efbe506aaf6c70ee30f3dab1af58148a8f9" {
		t.Error("slot 0 has other roots than the vector")
	}
}

func FuzzExecute(f *testing.F) {
	for _, name := range []string{"commands.txt", "join-1.0.txt"} {
		for _, l := range lines(f, name) {
			for _, field := range l {
				if b, err := hex.DecodeString(field); err == nil && len(b) >= MinCommand {
					f.Add(b[1:len(b)-2], byte(0))
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, blank byte) {
		if len(body) < 4 || len(body) > MaxCommand-3 {
			return
		}
		c := tnglora(t, Options{})
		if blank&1 != 0 {
			c = New(Blank([SerialSize]byte{1, 0x23}), Options{})
			c.nv.config[atLockConfig] = blank & 2
			c.nv.config[atLockValue] = unlocked & (blank << 3)
		}
		c.ram.temp.valid, c.ram.temp.given = true, blank&4 != 0
		packet := Command(Opcode(body[0]), body[1], binary.LittleEndian.Uint16(body[2:]), body[4:]...)
		roots := *(*[36]byte)(c.nv.slot(0))
		answer := c.Execute(packet)
		if int(answer[0]) != len(answer) || len(answer) < MinResponse {
			t.Fatalf("answer %x", answer)
		}
		if bytes.Contains(answer, roots[:16]) && blank&1 == 0 {
			t.Fatal("a root key came out")
		}
		if blank&1 == 0 && roots != *(*[36]byte)(c.nv.slot(0)) {
			t.Fatal("a root key was changed without a MAC")
		}
		if body[0] != byte(OpSHA) && bytes.Equal(c.Execute(body), nil) {
			t.Fatal("no answer")
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(OK.Packet())
	f.Add(response(make([]byte, 32)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if data, err := Answer(b); err == nil && data != nil && !bytes.Equal(response(data), b) {
			t.Fatalf("%x was read as %x", b, data)
		}
	})
}
