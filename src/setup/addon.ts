/** Placeholder until the real resolver lands. */
export function locateAddon(): string {
  return process.env.CLEFT_ADDON ?? ''
}
