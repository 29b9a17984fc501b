/** What a native call answered, as `ps_status` of the C header. */
export enum Status {
  Ok = 0,
  InvalidArgument = 1,
  OutOfMemory = 2,
  NoDevice = 3,
  Unsupported = 4,
  DeviceError = 5,
  Internal = 6,
}

/** A native call that did not succeed, with the line of text that the library left. */
export class NativeError extends Error {
  override readonly name = "NativeError";

  constructor(readonly status: Status, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}
