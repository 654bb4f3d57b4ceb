import type { PreparedImage } from '../../../src/data/images/gray.js'
import type { ImageSource, PrepareSettings } from '../../../src/data/loader/decoders.js'

export function prepareImage(source: ImageSource, settings: PrepareSettings): Promise<PreparedImage>
