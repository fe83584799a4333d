package seeds

// csvFormats are the formats that are text with one token a line (or a code of
// several), in the order of detection: what begins with a scheme or names its
// columns first, what shows only in its values last. PingID without counters is
// the same as OATH CSV.
var csvFormats = []*Format{&migrationExport, &otpauthList, &entraCSV, &phenixID, &multiOTP, &feitianText, &oathCSV, &pingID}
