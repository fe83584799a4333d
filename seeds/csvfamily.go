package seeds

// csvFormats are the formats that are tables of values, one token a line, in the
// order of detection.
var csvFormats = []*Format{&entraCSV, &phenixID, &multiOTP, &feitianText, &oathCSV, &pingID}
