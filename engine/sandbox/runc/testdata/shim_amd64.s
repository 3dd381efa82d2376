# The shim's interpreter for amd64. See shim.go for what it does. r12 is the
# current operation, ebx its number. A report is two words on the stack.
	lea	table(%rip), %r12
	sub	$16, %rsp
	xor	%ebx, %ebx
next:	mov	(%r12), %rax
	mov	8(%r12), %rdi
	mov	16(%r12), %rsi
	mov	24(%r12), %rdx
	mov	32(%r12), %r10
	mov	40(%r12), %r8
	mov	48(%r12), %r9
	syscall
	neg	%rax			# 1 to 4095 is an error
	lea	-1(%rax), %rcx
	cmp	$4095, %rcx
	jae	ok
	mov	%rax, %rbp
	mov	%rbx, (%rsp)
	mov	%rbp, 8(%rsp)
	mov	$1, %eax		# write(4, report, 16)
	mov	$4, %edi
	mov	%rsp, %rsi
	mov	$16, %edx
	syscall
	cmp	$64, %rbp
	jae	die
	mov	56(%r12), %rcx
	bt	%rbp, %rcx		# may this error be passed over?
	jc	ok
die:	mov	$231, %eax		# exit_group(255)
	mov	$255, %edi
	syscall
ok:	add	$64, %r12
	inc	%ebx
	jmp	next
	.balign	16, 0
table:
