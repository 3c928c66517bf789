package bundle

import "errors"

var (
	errNoID  = errors.New("container id cannot be empty")
	errBadID = errors.New("invalid container ID format")
)

// ParseID tells whether id can be a container's id: 1 to 255 bytes of
// [A-Za-z0-9_+.-], and neither "." nor "..", for it names a directory.
func ParseID(id string) error {
	if id == "" {
		return errNoID
	}
	if len(id) > maxID || id == "." || id == ".." {
		return errBadID
	}
	for i := range len(id) {
		switch b := id[i]; b {
		case '_', '+', '.', '-':
		default:
			if !isAlnum(b) {
				return errBadID
			}
		}
	}
	return nil
}
