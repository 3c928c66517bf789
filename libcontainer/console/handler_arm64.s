#include "textflag.h"

// The kernel passes the signal's number in R0, and has the return address, in its vDSO, in LR. All
// registers are the interrupted code's again when that has run.
TEXT ·onSignal(SB),NOSPLIT|NOFRAME,$0-0
	MOVD $·signalNumbers(SB), R1
	MOVWU R0, R0
	ADD  R0, R1
	MOVW ·pipeWrite(SB), R0
	MOVD $1, R2
	MOVD $64, R8 // write
	SVC
	RET

TEXT ·signalReturn(SB),NOSPLIT|NOFRAME,$0-0
	MOVD $139, R8 // rt_sigreturn
	SVC
	BRK

TEXT ·handlerPCs(SB),NOSPLIT,$0-16
	MOVD $·onSignal(SB), R0
	MOVD R0, handler+0(FP)
	MOVD ZR, restorer+8(FP)
	RET
