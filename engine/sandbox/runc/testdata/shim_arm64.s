// The shim's interpreter for arm64. See shim.go for what it does. x19 is the
// current operation, x20 its number. A report is two words on the stack.
	adr	x19, table
	sub	sp, sp, #16
	mov	x20, #0
next:	ldp	x8, x0, [x19]
	ldp	x1, x2, [x19, #16]
	ldp	x3, x4, [x19, #32]
	ldr	x5, [x19, #48]
	svc	#0
	neg	x21, x0			// 1 to 4095 is an error
	sub	x9, x21, #1
	cmp	x9, #4094
	b.hi	ok
	stp	x20, x21, [sp]
	mov	x8, #64			// write(4, report, 16)
	mov	x0, #4
	mov	x1, sp
	mov	x2, #16
	svc	#0
	cmp	x21, #63
	b.hi	die
	ldr	x9, [x19, #56]
	lsr	x9, x9, x21		// may this error be passed over?
	tbnz	x9, #0, ok
die:	mov	x8, #94			// exit_group(255)
	mov	x0, #255
	svc	#0
ok:	add	x19, x19, #64
	add	x20, x20, #1
	b	next
	.balign	16, 0
table:
