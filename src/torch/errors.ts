/**
 * An error of libtorch itself: its message names the operator, without C++ backtrace; the stack is JavaScript's.
 * Wrong arguments that are found before libtorch sees them are TypeErrors and RangeErrors instead.
 */
export class TorchError extends Error {
  override readonly name = 'TorchError'
}

/** Whether something thrown says that memory ran out, of a GPU or of the machine. */
export function isOutOfMemory(error: unknown): boolean {
  return (
    error instanceof TorchError &&
    /out of memory|can't allocate memory|not enough memory|expected enough memory/i.test(error.message)
  )
}
