import { createHash } from 'node:crypto'

/*
 * Names that say nothing: from the seed and what they name, through a hash.
 */

const digest = (keys: readonly (number | string)[]) => createHash('sha256').update(JSON.stringify(keys)).digest('hex')

/** In the form of a random UUID (version 4). */
export function uuidOf(...keys: readonly (number | string)[]): string {
  const hex = digest(keys)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${'89ab'[Number.parseInt(hex[16]!, 16) % 4]}${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

/** A DICOM UID below 2.25, which is free for everybody's UUIDs. */
export function uidOf(...keys: readonly (number | string)[]): string {
  return `2.25.${BigInt(`0x${digest(keys).slice(0, 32)}`)}`
}
