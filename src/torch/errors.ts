/**
 * An error of libtorch itself: its message names the operator, without C++ backtrace; the stack is JavaScript's.
 * Wrong arguments that are found before libtorch sees them are TypeErrors and RangeErrors instead.
 */
export class TorchError extends Error {
  override readonly name = 'TorchError'
}
