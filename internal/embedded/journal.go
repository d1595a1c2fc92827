package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A journal and a snapshot are files of the same records:
//
//	magic  4 bytes
//	length 4 bytes, little endian, of the payload
//	crc32c 4 bytes, over the record's offset in the file, the length and the payload
//
// The offset in the checksum keeps a copy of a record inside a value from passing for a record.
const (
	magic      = "GRJ1"
	headerSize = 12
	maxPayload = 64 << 20 // no command of Greenroom comes near it
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errTorn     = errors.New("the record is incomplete or its checksum is wrong")
	errTooLarge = fmt.Errorf("the command is larger than %d bytes", maxPayload)
	errPayload  = errors.New("the record's payload can't be decoded")
)

// record is commands that were executed together: at Millis (Unix time), with expiry swept up to
// Swept.
type record struct {
	Millis, Swept int64
	Commands      [][]string
}

// encode returns r as it stands at the given offset of a file.
func (r record) encode(offset int64) ([]byte, error) {
	b := append(make([]byte, 0, 256), magic...)
	b = append(b, make([]byte, headerSize-len(magic))...)
	b = binary.AppendVarint(b, r.Millis)
	b = binary.AppendVarint(b, r.Swept)
	b = binary.AppendUvarint(b, uint64(len(r.Commands)))
	for _, args := range r.Commands {
		b = binary.AppendUvarint(b, uint64(len(args)))
		for _, arg := range args {
			b = binary.AppendUvarint(b, uint64(len(arg)))
			b = append(b, arg...)
		}
	}
	if len(b)-headerSize > maxPayload {
		return nil, errTooLarge
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-headerSize))
	binary.LittleEndian.PutUint32(b[8:], checksum(offset, b))
	return b, nil
}

func checksum(offset int64, b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, binary.LittleEndian.AppendUint64(nil, uint64(offset)))
	crc = crc32.Update(crc, castagnoli, b[4:8])
	return crc32.Update(crc, castagnoli, b[headerSize:])
}

// decode reads the record at the start of b, which lies at offset in its file, and returns its
// size. errTorn says that there is no whole record.
func decode(b []byte, offset int64) (record, int, error) {
	if len(b) < headerSize || string(b[:4]) != magic {
		return record{}, 0, errTorn
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n > maxPayload || n > int64(len(b)-headerSize) {
		return record{}, 0, errTorn
	}
	b = b[:headerSize+int(n)]
	if binary.LittleEndian.Uint32(b[8:]) != checksum(offset, b) {
		return record{}, 0, errTorn
	}
	p := payload{b: b[headerSize:]}
	r := record{Millis: p.varint(), Swept: p.varint()}
	r.Commands = make([][]string, p.count())
	for i := range r.Commands {
		r.Commands[i] = make([]string, p.count())
		for j := range r.Commands[i] {
			r.Commands[i][j] = p.text()
		}
	}
	if p.bad || len(p.b) > 0 {
		return record{}, 0, errPayload
	}
	return r, len(b), nil
}

// payload reads fields off b until one is bad; after that every field is zero.
type payload struct {
	b   []byte
	bad bool
}

func (p *payload) varint() int64 {
	v, n := binary.Varint(p.b)
	return took(p, v, n)
}

// count is a number of things that take a byte or more each, or the size of a text.
func (p *payload) count() int {
	v, n := binary.Uvarint(p.b)
	if n > 0 && v > uint64(len(p.b)-n) {
		n = 0
	}
	return int(took(p, v, n))
}

func (p *payload) text() string {
	n := p.count()
	s := string(p.b[:n])
	p.b = p.b[n:]
	return s
}

func took[T int64 | uint64](p *payload, v T, n int) T {
	if n <= 0 || p.bad {
		p.bad, p.b = true, nil
		return 0
	}
	p.b = p.b[n:]
	return v
}

// scan calls apply for each record of b and returns where the whole records end. A bad record is a
// torn tail, and no error, only where no whole record follows it.
func scan(b []byte, apply func(record) error) (int64, error) {
	for at := 0; at < len(b); {
		r, n, err := decode(b[at:], int64(at))
		if err == nil {
			err = apply(r)
		} else if next := findRecord(b, at+1); errors.Is(err, errTorn) && next < 0 {
			return int64(at), nil
		}
		if err != nil {
			return int64(at), fmt.Errorf("%w: the record at byte %d of %d: %w", ErrCorrupt, at, len(b), err)
		}
		at += n
	}
	return int64(len(b)), nil
}

// findRecord returns the offset of the first whole record at or after from, or -1.
func findRecord(b []byte, from int) int {
	for at := from; at+headerSize <= len(b); at++ {
		if string(b[at:at+4]) != magic {
			continue
		}
		if _, _, err := decode(b[at:], int64(at)); !errors.Is(err, errTorn) {
			return at
		}
	}
	return -1
}

// journal is a file of records that is being appended to.
type journal struct {
	file  *os.File
	size  int64
	dirty bool // written to since the last sync began
}

// append writes r whole or not at all. What a failed write left is cut off; where even that fails
// it is overwritten by the next record, or dropped as a torn tail by the next open.
func (j *journal) append(r record) error {
	b, err := r.encode(j.size)
	if err != nil {
		return err
	}
	j.dirty = true
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		_ = j.file.Truncate(j.size)
		return err
	}
	j.size += int64(len(b))
	return nil
}

// readFile reads a file of records whole: it is at most a few times Options.CompactBytes.
func readFile(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, info.Size()), b); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return b, nil
}
