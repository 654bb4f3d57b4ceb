// Stands in for the images' decoding: pixels follow from the name alone, after a while that differs.
import { setTimeout } from 'node:timers/promises'

export async function prepareImage(source, { size, bits }) {
  const name = typeof source === 'string' ? source.split('/').at(-1) : `bytes ${source.length}`
  const number = Number(/\d+/.exec(name)?.[0] ?? 0)
  if (name.startsWith('exit')) process.exit(3)
  await setTimeout((number * 7) % 5)
  if (name.startsWith('bad')) throw new Error(`expected an image, but ${name} is none`)
  const pixels = bits === 8 ? new Uint8Array(size * size) : new Uint16Array(size * size)
  for (let at = 0; at < pixels.length; at += 1) pixels[at] = (number * 31 + at * 7) % 256
  const box = { top: number % 5, left: number % 3, bottom: size - 1 - (number % 7), right: size - 2 }
  return { padded: { width: size, height: size, pixels }, box, warnings: name.startsWith('odd') ? ['it is odd'] : [] }
}
