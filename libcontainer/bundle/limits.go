package bundle

// Limits on what is read. They bound memory and time for a hostile document;
// none is near what an engine sends.
const (
	maxSize  = 16 << 20 // a document, bytes
	maxDepth = 64       // nesting of objects and arrays

	maxList     = 65536  // entries of a list or map that has no limit of its own
	maxMounts   = 16000  // entries of mounts
	maxMappings = 340    // entries of an id map; the limit of user_namespaces(7)
	maxString   = 131071 // bytes of one argument or variable, execve(2) MAX_ARG_STRLEN less its NUL
	maxData     = 4095   // bytes of a mount's joined data, one page less its NUL, mount(2)
	maxUTS      = 64     // bytes of hostname and domainname, sethostname(2)
	maxID       = 255    // bytes of a container id, NAME_MAX

	maxProblems = 1000 // kept of one document
	maxShown    = 20   // of these printed in one error
	maxValue    = 128  // bytes of a value printed in a problem
	maxPointer  = 1024 // bytes of a pointer printed in one
	maxAccepted = 12   // accepted values that are printed in full
)

// noID is the id that means "unchanged" to setresuid(2) and chown(2), so no
// process, file or group can be given it.
const noID = 1<<32 - 1
