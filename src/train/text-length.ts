/*
 * How long texts are, as published for each kind of caption.
 */

interface CaptionedData {
  readonly kind: string
  readonly captions?: unknown
}

/**
 * Most tokens of a text where nobody names another number: 64 for chest X-rays, 96 with negatives, 72 for mammograms, 144
 * for their natural and structural captions.
 */
export function usualLength({ kind, captions }: CaptionedData): number {
  const { style } = (captions ?? {}) as { style?: string }
  if (kind !== 'embed') return style === 'negative' ? 96 : 64
  return style === 'natural' || style === 'structural' ? 144 : 72
}
