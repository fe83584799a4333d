package seeds

// deviceFormats are the formats that the tools of one maker write, in the order
// of detection.
var deviceFormats = []*Format{&safenetXML, &safewordDAT, &yubicoLog}
