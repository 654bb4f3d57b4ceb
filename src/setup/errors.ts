/** A mistake of the surroundings, not of cleft: shown as its message alone, without a stack trace. */
export class SetupError extends Error {
  override name = 'SetupError'
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The code (ENOENT, ...) of a system error, else undefined. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
