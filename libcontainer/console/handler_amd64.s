#include "textflag.h"

// The kernel passes the signal's number in DI, and has the return address, signalReturn, on the
// stack. All registers are the interrupted code's again when that has run.
TEXT ·onSignal(SB),NOSPLIT|NOFRAME,$0-0
	MOVLQZX DI, DI
	LEAQ    ·signalNumbers(SB), SI
	ADDQ    DI, SI
	MOVL    ·pipeWrite(SB), DI
	MOVL    $1, DX
	MOVL    $1, AX // write
	SYSCALL
	RET

TEXT ·signalReturn(SB),NOSPLIT|NOFRAME,$0-0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT  $3

TEXT ·handlerPCs(SB),NOSPLIT,$0-16
	LEAQ ·onSignal(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ ·signalReturn(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
